import { ActivityCancellationType, proxyActivities, proxyLocalActivities } from '@temporalio/workflow'
import type { Activities } from '../activities/index.ts'
import {
  checkpointStoreTimeoutMs,
  janitorHeartbeatMs,
  provisionHeartbeatTimeoutMs,
  restoreWaitMaxMs,
  sandboxReadyTimeoutMs,
  turnHeartbeatMs,
  webhookTimeoutMs,
} from '../domain/limits.ts'

/**
 * The steps of the workflows, by how long they take. A step fails for good only when the platform itself says so (a non-retryable failure); everything
 * else is tried again for as long as the workflow wants it, since the usual cause is a server that restarts.
 */
const retry = { initialInterval: '100ms', backoffCoefficient: 2, maximumInterval: '5s' } as const

/** One look at the database or one change of it: run by the worker that runs the workflow, which saves a turn through the server. */
export const quick = proxyLocalActivities<Activities>({ startToCloseTimeout: '30s', retry })

/** One call to a sandbox, or its removal. */
export const brief = proxyActivities<Activities>({
  startToCloseTimeout: '2m',
  heartbeatTimeout: provisionHeartbeatTimeoutMs,
  retry,
})

/** The same, behind other sessions that get their checkpoint back: begun anew, it would be the last of them. */
export const binding = proxyActivities<Activities>({
  startToCloseTimeout: restoreWaitMaxMs + 120_000,
  heartbeatTimeout: provisionHeartbeatTimeoutMs,
  retry,
})

/** A note that somebody else looks after, should it fail. */
export const marking = proxyActivities<Activities>({
  startToCloseTimeout: '1m',
  retry: { ...retry, maximumAttempts: 3 },
})

/** Waits for a sandbox. When cancelled it is over only once it has stopped, so that nothing is made after what it made was removed. */
export const starting = proxyActivities<Activities>({
  startToCloseTimeout: sandboxReadyTimeoutMs + 60_000,
  heartbeatTimeout: provisionHeartbeatTimeoutMs,
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  retry,
})

/** Takes a checkpoint and stores it. Its failures are written down with the time of the next try; these tries are for workers that die. */
export const storing = proxyActivities<Activities>({
  startToCloseTimeout: checkpointStoreTimeoutMs + 60_000,
  heartbeatTimeout: turnHeartbeatMs,
  retry: { ...retry, maximumAttempts: 5 },
})

/** As long as the harness works; the session's maximum age ends it. A silent worker is replaced after the heartbeat. */
export const turning = proxyActivities<Activities>({
  startToCloseTimeout: '30d',
  heartbeatTimeout: turnHeartbeatMs,
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  retry,
})

/** One try: the call, and what is written before and after it. */
export const delivering = proxyActivities<Activities>({
  startToCloseTimeout: webhookTimeoutMs + 45_000,
  heartbeatTimeout: provisionHeartbeatTimeoutMs,
  retry,
})

/** Its schedule comes again, so it is not tried for long. */
export const sweeping = proxyActivities<Activities>({
  startToCloseTimeout: '4m',
  heartbeatTimeout: janitorHeartbeatMs * 3,
  retry: { ...retry, maximumAttempts: 3 },
})
