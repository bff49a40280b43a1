import { AppError, errorText } from '../domain/errors.ts'
import { createReplyCollector } from '../domain/reply.ts'
import type { TurnRequest, TurnResult } from '../domain/supervisor-protocol.ts'
import { type Harness, type HarnessEvent, HarnessGone } from './harness.ts'
import type { Telling } from './history.ts'
import type { Journal } from './journal.ts'
import type { Loopback } from './loopback.ts'
import type { TurnTraffic } from './relay.ts'
import { conversationOf, messageOf, withModelNameInEvent } from './reply.ts'
import { noUsage } from './usage.ts'

/** What a bind has settled for all turns. */
export type Conversation = {
  id: string
  model: string
  history: Telling
}

/** Runs the turns of a bound session: one at a time, each id once, everything the harness says into the journal. */
export type Turns = {
  running(): string | null
  /** @throws AppError `conflict` while another one runs */
  start(request: TurnRequest): void
  /** The running turn, if it is this one (or any, without an id), ends as `cancelled`. One that has not come yet does when it comes. */
  interrupt(turnId: string | undefined): void
  hear(event: HarnessEvent): void
}

export type TurnsDeps = {
  journal: Journal
  loopback: Loopback
  harness: Harness
  /** Resolves when the harness runs; rejects when it cannot be started. */
  harnessRuns(): Promise<void>
  /** Nobody waits for the answers of its questions any more. */
  endQuestions(): void
  /** Ends a harness that does not obey. */
  killHarness(): Promise<void>
  log(line: string): void
}

/** A harness that has not ended its turn this long after being told to is killed. */
const cancelTimeoutMs = 5_000

/** Interrupted turns that are waited for; whoever interrupts so many has lost count. */
const interruptedAheadMax = 1_000

type Running = {
  id: string
  model: string
  cancelled: boolean
  /** Resolves when it is cancelled. */
  cancellation: PromiseWithResolvers<void>
  collector: ReturnType<typeof createReplyCollector>
}

const newTurn = (id: string, model: string): Running => ({
  id,
  model,
  cancelled: false,
  cancellation: Promise.withResolvers(),
  collector: createReplyCollector(),
})

type Outcome = { turn: Running; traffic: TurnTraffic; harnessError: string | null; gone: string | null }

const resultOf = ({ turn, traffic, harnessError, gone }: Outcome): TurnResult => {
  const { usage } = traffic
  const reply = turn.collector.reply()
  if (turn.cancelled) return { status: 'cancelled', reply, error: null, usage }
  if (gone !== null) return { status: 'failed', reply, error: { code: 'harness_exited', message: gone }, usage }
  // Requests beside the turn, such as for a title, may fail without harm.
  if (harnessError === null) return { status: 'done', reply, error: null, usage }
  const error =
    traffic.unreachable === null
      ? { code: 'harness_error' as const, message: harnessError }
      : { code: 'gateway_unreachable' as const, message: traffic.unreachable }
  return { status: 'failed', reply, error, usage }
}

/** Turns that were running when an earlier supervisor of this sandbox died: nobody will end them any more. */
export const closeLostTurns = (journal: Journal): void => {
  const message = 'the supervisor of the sandbox ended while the turn ran'
  for (const [turn_id, over] of journal.turns()) {
    if (over) continue
    const error = { code: 'harness_exited' as const, message }
    journal.append({
      type: 'turn_finished',
      turn_id,
      result: { status: 'failed', reply: null, error, usage: noUsage() },
    })
  }
}

/** @throws HarnessGone when it does not run; Error when it refuses the conversation */
const readyFor = async ({ harnessRuns, harness }: TurnsDeps, { id }: Conversation): Promise<void> => {
  await harnessRuns().catch((error: unknown) => {
    throw new HarnessGone(errorText(error), { cause: error })
  })
  await harness.ready(id)
}

export const createTurns = (conversation: Conversation, deps: TurnsDeps): Turns => {
  const { journal, loopback, harness } = deps
  let running: Running | null = null
  const interruptedAhead = new Set<string>()

  const run = async (turn: Running, request: TurnRequest): Promise<void> => {
    const traffic = loopback.beginTurn(turn.model)
    const outcome: Outcome = { turn, traffic, harnessError: null, gone: null }
    try {
      await Promise.race([readyFor(deps, conversation), turn.cancellation.promise])
      if (!turn.cancelled) await conversation.history.tell(harness, conversation.id)
      if (!turn.cancelled) {
        outcome.harnessError = (await harness.prompt(conversation.id, request.parts)).error
      }
    } catch (error) {
      if (error instanceof HarnessGone) outcome.gone = error.message
      else outcome.harnessError = errorText(error)
    }
    deps.endQuestions()
    running = null
    journal.append({ type: 'turn_finished', turn_id: turn.id, result: resultOf(outcome) })
  }

  const endUnbegun = (turn_id: string): void => {
    journal.append({ type: 'turn_started', turn_id })
    const result = { status: 'cancelled' as const, reply: null, error: null, usage: noUsage() }
    journal.append({ type: 'turn_finished', turn_id, result })
  }

  return {
    running: () => running?.id ?? null,
    start(request) {
      if (running?.id === request.turn_id || journal.turns().has(request.turn_id)) return
      if (running !== null)
        throw new AppError('conflict', `turn ${running.id} is running`, { cause: { code: 'turn_running' } })
      if (interruptedAhead.delete(request.turn_id)) return endUnbegun(request.turn_id)
      const model = request.model ?? conversation.model
      const turn = newTurn(request.turn_id, model)
      running = turn
      journal.append({ type: 'turn_started', turn_id: turn.id })
      void run(turn, request)
    },
    interrupt(turnId) {
      const turn = running
      if (turnId !== undefined && turn?.id !== turnId) {
        const isToCome = !journal.turns().has(turnId) && interruptedAhead.size < interruptedAheadMax
        if (isToCome) interruptedAhead.add(turnId)
        return
      }
      if (turn === null || turn.cancelled) return
      turn.cancelled = true
      turn.cancellation.resolve()
      // Not waited for: a harness that hangs may never answer that either.
      harness.cancel(conversation.id).catch((error: unknown) => deps.log(`cancel: ${errorText(error)}`))
      const late = AbortSignal.timeout(cancelTimeoutMs)
      late.addEventListener('abort', () => {
        if (running !== turn) return
        deps.log('the harness did not end its turn and is killed')
        void deps.killHarness()
      })
    },
    hear(event) {
      if (conversationOf(event) !== conversation.id || conversation.history.holds(messageOf(event) ?? '')) return
      const named = withModelNameInEvent(event, running?.model ?? conversation.model)
      running?.collector.hear(named)
      journal.append({ type: 'harness', turn_id: running?.id ?? null, event: named })
    },
  }
}
