import type { Client } from '@temporalio/client'
import { Client as TemporalClient, Connection } from '@temporalio/client'
import type { Stack } from '../faults/stack.ts'
import { until } from '../until.ts'
import { createAgent, openSession, type Session } from '../faults/world.ts'

/** What the tests of pools and sessions do and look at, beside test/faults/world.ts. */

export type PoolSandbox = {
  id: string
  name: string
  agent_id: string
  state: string
  session_id: string | null
  template_hash: string
  retiring: boolean
  created_at: Date
  ready_at: Date | null
  claimed_at: Date | null
  ended_at: Date | null
}
export type PoolState = {
  share: number
  decision: string
  reason: string
  decided_at: Date
  failures: number
  backoff_until: Date | null
  breaker_open: boolean
  breaker_reason: string | null
  want: number
}
export type Claim = { outcome: string; attempt: number; sandbox_id: string | null; agent_id: string }

/** An agent whose template no other agent of the test has. */
export const ownAgent = (stack: Stack, name: string, more: object = {}): Promise<string> =>
  createAgent(stack, { name, setup_cmd: `: ${name}`, ...more })

/** Sandboxes of an agent's pool that are being made or wait, oldest first. */
export const poolOf = (stack: Stack, agentId: string): Promise<PoolSandbox[]> =>
  stack.sql<PoolSandbox>(
    "select * from sandbox where agent_id = $1 and purpose = 'pool' and state in ('provisioning', 'warm') order by created_at",
    [agentId],
  )

export const warmOf = async (stack: Stack, agentId: string): Promise<PoolSandbox[]> =>
  (await poolOf(stack, agentId)).filter(({ state, retiring }) => state === 'warm' && !retiring)

/** Waits until an agent's pool has exactly so many warm ones, and makes no more. */
export const poolSettles = (stack: Stack, agentId: string, warm: number, deadlineMs = 60_000): Promise<PoolSandbox[]> =>
  until(`${warm} warm sandboxes of agent ${agentId}`, deadlineMs, async () => {
    const pool = await poolOf(stack, agentId)
    return pool.length === warm && pool.every(({ state, retiring }) => state === 'warm' && !retiring) ? pool : null
  })

export const stateOf = async (stack: Stack, agentId: string): Promise<PoolState | null> =>
  (await stack.sql<PoolState>('select * from pool_state where agent_id = $1', [agentId]))[0] ?? null

/** What the pool gave to a session, attempt by attempt. */
export const claimsOf = (stack: Stack, sessionId: string): Promise<Claim[]> =>
  stack.sql<Claim>('select * from claim where session_id = $1 order by attempt', [sessionId])

/** A session that is opened and at once deleted: the agent counts as used. @returns the session as it was opened */
export const useOnce = async (stack: Stack, agentId: string): Promise<Session> => {
  const session = await openSession(stack, agentId)
  await stack.http('DELETE', `/sessions/${session.id}`)
  return session
}

const send = (stack: Stack, kind: 'poke_pool' | 'signal_session', subject: string): Promise<unknown> =>
  stack.sql(
    'insert into outbox (kind, subject, created_at, attempts, next_at) values ($1, $2::uuid, now(), 0, now()) returning id',
    [kind, subject],
  )
/** What a test changed in the database is seen at the next look; this asks for it now. */
export const pokePool = (stack: Stack, agentId: string): Promise<unknown> => send(stack, 'poke_pool', agentId)
export const wakeSession = (stack: Stack, sessionId: string): Promise<unknown> =>
  send(stack, 'signal_session', sessionId)

/** Has the database note, at every change of a sandbox, how many the pools hold and start. @returns the most there ever were */
export const watchLimits = async (stack: Stack): Promise<() => Promise<{ held: number; starting: number }>> => {
  await stack.sql('create table seen (held int, starting int)')
  await stack.sql(`create function note_pool() returns trigger language plpgsql as $$ begin
    insert into seen select count(*) filter (where not retiring), count(*) filter (where state = 'provisioning')
      from sandbox where purpose = 'pool' and state in ('provisioning', 'warm');
    return null; end $$`)
  await stack.sql(
    'create trigger note_pool after insert or update on sandbox for each statement execute function note_pool()',
  )
  return async () => {
    const [most] = await stack.sql<{ held: number; starting: number }>(
      'select max(held) held, max(starting) starting from seen',
    )
    return most!
  }
}

/** Temporal, as an operator has it. */
export const withTemporal = async <T>(stack: Stack, work: (client: Client) => Promise<T>): Promise<T> => {
  const connection = await Connection.connect({ address: stack.temporalAddress, connectTimeout: 10_000 })
  try {
    return await work(new TemporalClient({ connection, namespace: 'lap' }))
  } finally {
    await connection.close()
  }
}

/** What the Temporal UI shows as the current details of a workflow. */
export const detailsOf = (stack: Stack, workflowId: string): Promise<string> =>
  withTemporal(stack, async (client) => {
    const { currentDetails } = await client.workflow
      .getHandle(workflowId)
      .query<{ currentDetails?: string }>('__temporal_workflow_metadata')
    return currentDetails ?? ''
  })
