import { ScheduleAlreadyRunning, ScheduleOverlapPolicy } from '@temporalio/client'
import { janitorEveryMs, temporalCallMs } from '../domain/limits.ts'
import { JANITOR_SCHEDULE_ID, JANITOR_WORKFLOW_ID } from '../domain/names.ts'
import { WORKFLOWS } from '../workflows/messages.ts'
import type { Temporal } from './client.ts'

/** Makes the janitor's schedule, once for the namespace. One look at a time; looks that were missed are not made up for. */
export const ensureJanitor = async ({ client, connection, taskQueue }: Temporal): Promise<void> => {
  try {
    await connection.withDeadline(Date.now() + temporalCallMs, () =>
      client.schedule.create({
        scheduleId: JANITOR_SCHEDULE_ID,
        spec: { intervals: [{ every: janitorEveryMs }] },
        policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow: janitorEveryMs },
        action: { type: 'startWorkflow', workflowType: WORKFLOWS.janitor, taskQueue, workflowId: JANITOR_WORKFLOW_ID },
      }),
    )
  } catch (error) {
    if (!(error instanceof ScheduleAlreadyRunning)) throw error
  }
}
