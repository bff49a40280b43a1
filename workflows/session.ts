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
import { createCheckpoints } from './checkpoints.ts'
import { createMarks } from './marks.ts'
import { createRemovals } from './removals.ts'
import { describeSession, isWanted, lookAgainIn, nextStep, shortestWaitMs } from './session-state.ts'
import type { SessionStep, Spent } from './session-state.ts'
import { binding, quick, starting, turning } from './steps.ts'
import { whileWanted } from './while-wanted.ts'

/** Why a sandbox did not start, when that is what an activity failed with. */
const startFailureOf = (error: unknown): StartFailure | null => {
  const cause = error instanceof ActivityFailure ? error.cause : error
  if (!(cause instanceof ApplicationFailure) || cause.nonRetryable !== true) return null
  if (cause.type === 'SandboxFailed') return cause.details?.[0] as StartFailure
  // The platform refuses for good, for instance because the agent's row is not there.
  return { code: 'sandbox_lost', message: cause.message }
}

const nothingSpent = (): Spent => ({ dead: 0, failed: 0, lastFailure: null })

/** The steps of one session, and what they remember of each other. */
const createSteps = (sessionId: string) => {
  let woken = false
  let spent = nothingSpent()
  const removals = createRemovals(() => {})
  const marks = createMarks()
  const onWake = (): void => {
    woken = true
  }
  const checkpoints = createCheckpoints(sessionId, onWake)

  const load = async (): Promise<SessionView | null> => {
    woken = false
    const view = await quick.loadSession(sessionId)
    if (view === null) return null
    removals.start(view.litter)
    marks.start(view.sandbox)
    return view
  }

  /** For a step that takes long: every wake, and every deadline, is a reason to look whether it is still wanted. */
  const watched = <T>(step: SessionStep, view: SessionView, work: () => Promise<T>): Promise<T | 'stopped'> => {
    let seen = view
    return whileWanted(work, {
      woken: () => woken,
      lookAgainMs: () => lookAgainIn(seen, Date.now()),
      look: async () => {
        seen = (await load()) ?? seen
        return isWanted(step, seen, Date.now())
      },
    })
  }

  const provision = async (step: SessionStep & { do: 'provision' }, view: SessionView): Promise<void> => {
    try {
      await watched(step, view, () => starting.provisionSandbox(step.sandboxId))
    } catch (error) {
      const lastFailure = startFailureOf(error)
      if (lastFailure === null) throw error
      spent = { ...spent, failed: spent.failed + 1, lastFailure }
    }
  }

  const bind = async (): Promise<void> => {
    const outcome = await binding.bindSandbox(sessionId)
    const lastFailure = {
      code: 'sandbox_lost' as const,
      message: 'it did not answer when it was told whom it works for',
    }
    spent = outcome === 'dead' ? { ...spent, dead: spent.dead + 1, lastFailure } : nothingSpent()
  }

  const expire = async (): Promise<void> => {
    // By the clock of the database it may be a moment too early.
    if (!(await quick.endIfDue(sessionId))) await condition(() => woken, shortestWaitMs)
  }

  const act = async (step: SessionStep, view: SessionView): Promise<void> => {
    if (step.do === 'obtain') await quick.obtainSandbox(sessionId, { warm: step.warm })
    else if (step.do === 'provision') await provision(step, view)
    else if (step.do === 'bind') await bind()
    else if (step.do === 'turn')
      await watched(step, view, () => turning.runTurn({ turnId: step.turnId, sandboxId: step.sandboxId }))
    else if (step.do === 'checkpoint') await checkpoints.take(() => woken)
    else if (step.do === 'leave') await checkpoints.leave()
    else if (step.do === 'expire') await expire()
    else if (step.do === 'fail') await quick.failSession(sessionId, { code: step.code, reason: step.reason })
    else if (step.do === 'wait') await condition(() => woken, step.ms)
  }

  return {
    onWake,
    load,
    next: (view: SessionView): SessionStep => nextStep(view, spent, Date.now(), checkpoints.isRunning()),
    act,
    isStoring: checkpoints.isRunning,
    /** What goes on behind the steps is over. */
    settled: (): Promise<unknown> => Promise.all([removals.done(), checkpoints.done()]),
  }
}

/** What the Temporal UI shows of the session. */
const createDisplay = () => {
  let status = ''
  return (view: SessionView, step: SessionStep): void => {
    setCurrentDetails(describeSession(view, step))
    // Each change is an entry of the history.
    if (status === view.status) return
    status = view.status
    upsertSearchAttributes([{ key: statusAttribute, value: status }])
  }
}

/** @param busy something goes on behind the steps; waiting for it would hold up turns, so it is let run for as long again */
const isLong = (busy: boolean): boolean => {
  const { continueAsNewSuggested, historyLength } = workflowInfo()
  if (busy) return historyLength > 2 * continueAsNewEvents
  return continueAsNewSuggested || historyLength > continueAsNewEvents
}

/**
 * A session's life: obtain a sandbox, bind it, run one turn after the other, and end by delete, idleness, age or failure. The truth is in the
 * database; this reads it, does what comes next, and looks again. See docs/session-lifecycle.md.
 */
export async function session(input: SessionInput): Promise<void> {
  const steps = createSteps(input.sessionId)
  setHandler(wake, steps.onWake)
  const show = createDisplay()

  const live = async (): Promise<void> => {
    for (;;) {
      const view = await steps.load()
      if (view === null) return
      const step = steps.next(view)
      show(view, step)
      if (step.do === 'end') return
      if (isLong(steps.isStoring())) {
        await steps.settled()
        await condition(allHandlersFinished)
        await continueAsNew<typeof session>(input)
      }
      await steps.act(step, view)
    }
  }

  try {
    await live()
  } catch (error) {
    if (!isCancellation(error) || !CancellationScope.current().consideredCancelled) throw error
    // Cancelled by an operator: the same as deleting the session.
    await CancellationScope.nonCancellable(() => quick.stopSession(input.sessionId))
  }
  await CancellationScope.nonCancellable(async () => {
    const last = await steps.load()
    if (last !== null) show(last, { do: 'end' })
    await steps.settled()
  })
}
