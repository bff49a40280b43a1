/** Every name that two parts of the system must agree on is made here. */

export const sessionWorkflowId = (sessionId: string): string => `session/${sessionId}`
export const webhookWorkflowId = (deliveryId: string): string => `webhook/${deliveryId}`
export const poolWorkflowId = (agentId: string): string => `pool/${agentId}`
export const JANITOR_SCHEDULE_ID = 'janitor'
export const JANITOR_WORKFLOW_ID = 'janitor'
export const TASK_QUEUE = 'lap'

/** Name of a sandbox in its cluster: new for every attempt, so nothing that is going away can be adopted. DNS label, ≤ 63 characters. */
export const sandboxName = (sandboxId: string): string => `lap-${sandboxId}`

/** Postgres channel on which `<session id>` is notified after events were appended. */
export const EVENT_CHANNEL = 'lap_event'

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
export const isId = (text: string): boolean => UUID.test(text)
