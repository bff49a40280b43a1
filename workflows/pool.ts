import {
  allHandlersFinished,
  condition,
  continueAsNew,
  setCurrentDetails,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow'
import type { PoolStep } from '../activities/pool.ts'
import { continueAsNewEvents } from '../domain/limits.ts'
import { poke } from './messages.ts'
import type { PoolInput } from './messages.ts'
import { createRemovals } from './removals.ts'
import { quick, starting } from './steps.ts'

/** Text of others, such as git's, in a table. */
const cell = (text: string): string => text.replaceAll(/\s*\n\s*/g, ' · ').replaceAll('|', '\\|')

const describePool = (step: PoolStep): string =>
  [
    '| | |',
    '|---|---|',
    `| Decision | ${cell(step.decision)} |`,
    `| Reason | ${cell(step.reason)} |`,
    `| Share | ${step.share} |`,
    `| Warm | ${step.warm} |`,
    `| Starting | ${step.provision.length} |`,
  ].join('\n')

/**
 * The warm pool of one agent: looks, decides, starts and removes sandboxes, and waits for the next poke or deadline. It holds no truth, so it may end, or be
 * ended, at any moment; the next poke begins it again. See docs/warm-pool.md.
 */
export async function pool(input: PoolInput): Promise<void> {
  let poked = false
  const lookAgain = (): void => {
    poked = true
  }
  setHandler(poke, lookAgain)
  const removals = createRemovals(lookAgain)
  const starts = new Set<string>()

  const start = (sandboxId: string): void => {
    if (starts.has(sandboxId)) return
    starts.add(sandboxId)
    const started = starting
      .provisionPooled(sandboxId)
      // What went wrong is in the sandbox' row; what could not be written there is found by the janitor.
      .catch(() => {})
    void started.then(() => {
      starts.delete(sandboxId)
      lookAgain()
    })
  }

  for (;;) {
    poked = false
    const step = await quick.reconcilePool(input.agentId)
    setCurrentDetails(describePool(step))
    for (const id of step.provision) start(id)
    removals.start(step.remove)
    const busy = starts.size > 0 || removals.count() > 0
    if (step.finished && !busy && !poked) return
    const { continueAsNewSuggested, historyLength } = workflowInfo()
    // The next run waits for the same sandboxes; better is a moment when nothing is being started, and there nearly always is one.
    if (continueAsNewSuggested || historyLength > continueAsNewEvents * (busy ? 2 : 1)) {
      await condition(allHandlersFinished)
      await continueAsNew<typeof pool>(input)
    }
    if (!poked) await condition(() => poked, Math.max(step.nextCheckMs, 100))
  }
}
