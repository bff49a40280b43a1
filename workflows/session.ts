import {
  allHandlersFinished,
  CancellationScope,
  condition,
  continueAsNew,
  isCancellation,
  setCurrentDetails,
  setHandler,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow'
import { ActivityFailure, ApplicationFailure } from '@temporalio/common'
import type { StartFailure } from '../activities/failure.ts'
import type { SessionView } from '../activities/session.ts'
import { continueAsNewEvents } from '../domain/limits.ts'
import { statusAttribute, wake } from './messages.ts'
import type { SessionInput } from './messages.ts'
import { createRemovals } from './removals.ts'
import { describeSession, isWanted, lookAgainIn, nextStep } from './session-state.ts'
import type { SessionStep, Spent } from './session-state.ts'
import { brief, quick, starting, turning } from './steps.ts'

/** Why a sandbox did not start, when that is what an activity failed with. */
const startFailureOf = (error: unknown): StartFailure | null => {
  const cause = error instanceof ActivityFailure ? error.cause : error
  if (!(cause instanceof ApplicationFailure) || cause.nonRetryable !== true) return null
  if (cause.type === 'SandboxFailed') return cause.details?.[0] as StartFailure
  // The platform refuses for good, for instance because the agent's row is not there.
  return { code: 'sandbox_lost', message: cause.message }
}

/**
 * A session's life: obtain a sandbox, bind it, run one turn after the other, and end by delete, idleness, age or failure. The truth is in the
 * database; this reads it, does what comes next, and looks again. See docs/session-lifecycle.md.
 */
export async function session(input: SessionInput): Promise<void> {
  const { sessionId } = input
  let woken = false
  setHandler(wake, () => {
    woken = true
  })
  const removals = createRemovals(() => {})
  const spent: Spent = { dead: 0, failed: 0, lastFailure: null }
  let shownStatus = ''

  const show = (view: SessionView, step: SessionStep): void => {
    setCurrentDetails(describeSession(view, step))
    if (shownStatus === view.status) return
    shownStatus = view.status
    upsertSearchAttributes([{ key: statusAttribute, value: view.status }])
  }

  /** Does a step that takes long, and stops it as soon as the database says that it is of no use. */
  const whileWanted = async <T>(
    step: SessionStep,
    view: SessionView,
    work: () => Promise<T>,
  ): Promise<T | 'stopped'> => {
    let over = false
    const scope = new CancellationScope()
    const running = scope
      .run(work)
      .catch((error: unknown) => {
        if (isCancellation(error) && scope.consideredCancelled) return 'stopped' as const
        throw error
      })
      .finally(() => {
        over = true
      })
    // Awaited below; until then a failure must not count as unhandled.
    running.catch(() => {})
    let seen = view
    while (!over) {
      await condition(() => over || woken, lookAgainIn(seen, Date.now()))
      if (over) break
      woken = false
      seen = (await quick.loadSession(sessionId)) ?? seen
      removals.start(seen.litter)
      if (!isWanted(step, seen, Date.now())) scope.cancel()
      if (scope.consideredCancelled) await condition(() => over)
    }
    return running
  }

  const provision = async (step: SessionStep & { do: 'provision' }, view: SessionView): Promise<void> => {
    try {
      await whileWanted(step, view, () => starting.provisionSandbox(step.sandboxId))
    } catch (error) {
      const failure = startFailureOf(error)
      if (failure === null) throw error
      spent.failed++
      spent.lastFailure = failure
    }
  }

  const bind = async (): Promise<void> => {
    const outcome = await brief.bindSandbox(sessionId)
    if (outcome === 'dead') {
      spent.dead++
      spent.lastFailure = { code: 'sandbox_lost', message: 'it did not answer when it was told whom it works for' }
      return
    }
    spent.dead = 0
    spent.failed = 0
    spent.lastFailure = null
  }

  const act = async (step: SessionStep, view: SessionView): Promise<void> => {
    switch (step.do) {
      case 'obtain':
        await quick.obtainSandbox(sessionId, { warm: step.warm })
        return
      case 'provision':
        return provision(step, view)
      case 'bind':
        return bind()
      case 'turn':
        await whileWanted(step, view, () => turning.runTurn({ turnId: step.turnId, sandboxId: step.sandboxId }))
        return
      case 'expire':
        await quick.endIfDue(sessionId)
        return
      case 'fail':
        await quick.failSession(sessionId, { code: step.code, reason: step.reason })
        return
      case 'wait':
        await condition(() => woken, step.ms)
        return
      case 'end':
    }
  }

  const isLong = (): boolean =>
    workflowInfo().continueAsNewSuggested || workflowInfo().historyLength > continueAsNewEvents

  const live = async (): Promise<void> => {
    for (;;) {
      woken = false
      const view = await quick.loadSession(sessionId)
      if (view === null) return
      removals.start(view.litter)
      const step = nextStep(view, spent, Date.now())
      show(view, step)
      if (step.do === 'end') return
      if (isLong()) {
        await removals.done()
        await condition(allHandlersFinished)
        await continueAsNew<typeof session>(input)
      }
      await act(step, view)
    }
  }

  try {
    await live()
  } catch (error) {
    if (!isCancellation(error)) throw error
    // Cancelled by an operator: the same as deleting the session.
    await CancellationScope.nonCancellable(() => quick.stopSession(sessionId))
  }
  await CancellationScope.nonCancellable(async () => {
    const last = await quick.loadSession(sessionId)
    if (last !== null) {
      removals.start(last.litter)
      show(last, { do: 'end' })
    }
    await removals.done()
  })
}
