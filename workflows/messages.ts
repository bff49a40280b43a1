import { defineSearchAttributeKey, SearchAttributeType } from '@temporalio/common'
import { defineSignal } from '@temporalio/workflow'

/**
 * What workflows and those who start them agree on. Signals carry no data: they say "look again", and the truth is read from Postgres, so a lost
 * or doubled one does no harm.
 */
export const wake = defineSignal('wake')
export const poke = defineSignal('poke')

/** State carried over continue-as-new. Small and versioned; fields are only ever added. */
export type SessionInput = { v: 1; sessionId: string }
export type PoolInput = { v: 1; agentId: string }
export type WebhookInput = { v: 1; deliveryId: string }

/** Found by the name in lists of the Temporal UI; made in the namespace when a worker starts. */
export const agentIdAttribute = defineSearchAttributeKey('LapAgentId', SearchAttributeType.KEYWORD)
export const statusAttribute = defineSearchAttributeKey('LapStatus', SearchAttributeType.KEYWORD)

/** Types of the workflows, as `workflows/index.ts` exports them. */
export const WORKFLOWS = { session: 'session', pool: 'pool', janitor: 'janitor', webhook: 'webhook' } as const
