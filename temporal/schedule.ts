import { ScheduleAlreadyRunning, ScheduleOverlapPolicy } from '@temporalio/client'
import { janitorEveryMs, janitorRunTimeoutMs } from '../domain/limits.ts'
import { JANITOR_SCHEDULE_ID, JANITOR_WORKFLOW_ID } from '../domain/names.ts'
import { WORKFLOWS } from '../workflows/messages.ts'
import type { Temporal } from './client.ts'

/**
 * Makes the janitor's schedule, or brings it to what this version wants. One look at a time; looks that were missed are not made up for, and one
 * that hangs is ended, or none would ever follow it. The first one is now: what was lost while no worker looked is not found a minute later.
 */
export const ensureJanitor = async ({ client, taskQueue }: Temporal): Promise<void> => {
  const schedule = {
    spec: { intervals: [{ every: janitorEveryMs }] },
    policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow: janitorEveryMs },
    action: {
      type: 'startWorkflow' as const,
      workflowType: WORKFLOWS.janitor,
      taskQueue,
      workflowId: JANITOR_WORKFLOW_ID,
      workflowRunTimeout: janitorRunTimeoutMs,
    },
  }
  try {
    await client.schedule.create({ scheduleId: JANITOR_SCHEDULE_ID, ...schedule })
  } catch (error) {
    if (!(error instanceof ScheduleAlreadyRunning)) throw error
    await client.schedule.getHandle(JANITOR_SCHEDULE_ID).update((known) => ({ ...known, ...schedule }))
  }
  await client.schedule.getHandle(JANITOR_SCHEDULE_ID).trigger(ScheduleOverlapPolicy.SKIP)
}
