import { Client, WorkflowNotFoundError } from '@temporalio/client'
import type { Connection, WorkflowExecutionDescription } from '@temporalio/client'
import type { TemporalConfig } from '../config/temporal.ts'
import { temporalCallMs, temporalProbeMs } from '../domain/limits.ts'
import { poolWorkflowId, sessionWorkflowId, TASK_QUEUE, webhookWorkflowId } from '../domain/names.ts'
import { agentIdAttribute, poke, statusAttribute, wake, WORKFLOWS } from '../workflows/messages.ts'
import type { PoolInput, SessionInput, WebhookInput } from '../workflows/messages.ts'
import { connectLazily } from './connection.ts'

export type PendingActivity = { type: string; attempt: number; state: string; last_failure: string | null }
export type DescribedWorkflow = {
  id: string
  run_id: string
  /** As Temporal names it: `RUNNING`, `COMPLETED`, `TERMINATED`, … */
  status: string
  pending_activities: PendingActivity[]
  /** Its page in the Temporal UI, when that is known. */
  ui_url: string | null
}

/** What a session's workflow is started with; shown in the Temporal UI. */
export type StartSession = { sessionId: string; agentId: string; summary: string }

/** The platform's use of Temporal. Every call has a deadline and throws when Temporal cannot be reached in time. */
export type Temporal = AsyncDisposable & {
  connection: Connection
  client: Client
  namespace: string
  taskQueue: string
  /** Starts a session's workflow; one that runs already is left alone. */
  startSession(start: StartSession): Promise<void>
  /** @returns false when no workflow of this session runs */
  signalSession(sessionId: string): Promise<boolean>
  /** Asks an agent's pool to look again, and starts it if it is not there. */
  pokePool(agentId: string, summary?: string): Promise<void>
  /** Has a delivery looked at, by the workflow that it has or by a new one. */
  deliverWebhook(deliveryId: string, summary: string): Promise<void>
  /** @returns false when no workflow of this delivery runs */
  signalDelivery(deliveryId: string): Promise<boolean>
  /** @returns null when there is no such workflow */
  describeSession(sessionId: string): Promise<DescribedWorkflow | null>
  describePool(agentId: string): Promise<DescribedWorkflow | null>
  terminatePool(agentId: string, reason: string): Promise<void>
  isReachable(): Promise<boolean>
}

const ACTIVITY_STATES = ['UNSPECIFIED', 'SCHEDULED', 'STARTED', 'CANCEL_REQUESTED', 'PAUSED', 'PAUSE_REQUESTED']

const pendingOf = ({ raw }: WorkflowExecutionDescription): PendingActivity[] =>
  (raw.pendingActivities ?? []).map((activity) => ({
    type: activity.activityType?.name ?? '',
    attempt: activity.attempt ?? 1,
    state: ACTIVITY_STATES[activity.state ?? 0] ?? 'UNSPECIFIED',
    last_failure: activity.lastFailure?.message ?? null,
  }))

const uiUrl = (config: TemporalConfig, workflowId: string, runId: string): string | null =>
  config.uiUrl === null
    ? null
    : `${config.uiUrl.replace(/\/+$/, '')}/namespaces/${encodeURIComponent(config.namespace)}/workflows/${encodeURIComponent(workflowId)}/${runId}/timeline`

/** @returns false when it does not run */
const wakeUp = async (client: Client, workflowId: string): Promise<boolean> => {
  try {
    await client.workflow.getHandle(workflowId).signal(wake)
    return true
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return false
    throw error
  }
}

type Starts = Pick<Temporal, 'startSession' | 'signalSession' | 'pokePool' | 'deliverWebhook' | 'signalDelivery'>

const starts = (client: Client, taskQueue: string): Starts => ({
  startSession: async ({ sessionId, agentId, summary }) => {
    const input: SessionInput = { v: 1, sessionId }
    await client.workflow.start(WORKFLOWS.session, {
      workflowId: sessionWorkflowId(sessionId),
      taskQueue,
      args: [input],
      workflowIdConflictPolicy: 'USE_EXISTING',
      workflowIdReusePolicy: 'ALLOW_DUPLICATE',
      typedSearchAttributes: [
        { key: agentIdAttribute, value: agentId },
        { key: statusAttribute, value: 'creating' },
      ],
      staticSummary: summary,
    })
  },
  signalSession: (sessionId) => wakeUp(client, sessionWorkflowId(sessionId)),
  deliverWebhook: async (deliveryId, summary) => {
    const input: WebhookInput = { v: 1, deliveryId }
    await client.workflow.signalWithStart(WORKFLOWS.webhook, {
      workflowId: webhookWorkflowId(deliveryId),
      taskQueue,
      args: [input],
      signal: wake,
      workflowIdReusePolicy: 'ALLOW_DUPLICATE',
      staticSummary: summary,
    })
  },
  signalDelivery: (deliveryId) => wakeUp(client, webhookWorkflowId(deliveryId)),
  pokePool: async (agentId, summary = `Warm pool of agent ${agentId}`) => {
    const input: PoolInput = { v: 1, agentId }
    await client.workflow.signalWithStart(WORKFLOWS.pool, {
      workflowId: poolWorkflowId(agentId),
      taskQueue,
      args: [input],
      signal: poke,
      workflowIdReusePolicy: 'ALLOW_DUPLICATE',
      typedSearchAttributes: [{ key: agentIdAttribute, value: agentId }],
      staticSummary: summary,
    })
  },
})

/**
 * @param options.taskQueue for tests; the worker's and the clients' must be the same
 */
export const createTemporal = (config: TemporalConfig, options: { taskQueue?: string } = {}): Temporal => {
  const taskQueue = options.taskQueue ?? TASK_QUEUE
  const connection = connectLazily(config)
  const client = new Client({ connection, namespace: config.namespace })
  const within = <T>(ms: number, call: () => Promise<T>): Promise<T> => connection.withDeadline(Date.now() + ms, call)
  const bare = starts(client, taskQueue)

  const describe = async (workflowId: string): Promise<DescribedWorkflow | null> => {
    try {
      const found = await within(temporalCallMs, () => client.workflow.getHandle(workflowId).describe())
      return {
        id: workflowId,
        run_id: found.runId,
        status: found.status.name,
        pending_activities: pendingOf(found),
        ui_url: uiUrl(config, workflowId, found.runId),
      }
    } catch (error) {
      if (error instanceof WorkflowNotFoundError) return null
      throw error
    }
  }

  const terminate = async (workflowId: string, reason: string): Promise<void> => {
    try {
      await within(temporalCallMs, () => client.workflow.getHandle(workflowId).terminate(reason))
    } catch (error) {
      if (!(error instanceof WorkflowNotFoundError)) throw error
    }
  }

  return {
    connection,
    client,
    namespace: config.namespace,
    taskQueue,
    startSession: (start) => within(temporalCallMs, () => bare.startSession(start)),
    signalSession: (sessionId) => within(temporalCallMs, () => bare.signalSession(sessionId)),
    pokePool: (agentId, summary) => within(temporalCallMs, () => bare.pokePool(agentId, summary)),
    deliverWebhook: (deliveryId, summary) => within(temporalCallMs, () => bare.deliverWebhook(deliveryId, summary)),
    signalDelivery: (deliveryId) => within(temporalCallMs, () => bare.signalDelivery(deliveryId)),
    describeSession: (sessionId) => describe(sessionWorkflowId(sessionId)),
    describePool: (agentId) => describe(poolWorkflowId(agentId)),
    terminatePool: (agentId, reason) => terminate(poolWorkflowId(agentId), reason),
    isReachable: async () => {
      try {
        await within(temporalProbeMs, () => connection.workflowService.getSystemInfo({}))
        return true
      } catch {
        return false
      }
    },
    [Symbol.asyncDispose]: () => connection.close(),
  }
}
