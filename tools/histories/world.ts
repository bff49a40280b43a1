import { readFileSync } from 'node:fs'
import path from 'node:path'
import type { Client } from '@temporalio/client'
import { poolWorkflowId, sessionWorkflowId, webhookWorkflowId } from '../../domain/names.ts'
import type { Stack } from '../../test/faults/stack.ts'
import { until } from '../../test/until.ts'

const DEADLINE_MS = 60_000

type Pooled = { id: string; state: string; retiring: boolean }

/** What the database says. */
const createViews = ({ sql, sandboxDir }: Stack) => {
  const pool = (agentId: string): Promise<Pooled[]> =>
    sql(
      "select * from sandbox where agent_id = $1 and purpose = 'pool' and state in ('provisioning', 'warm') order by created_at",
      [agentId],
    )
  const sandboxOf = (sessionId: string): Promise<{ name: string }> =>
    until('a sandbox', DEADLINE_MS, async () => {
      const query = 'select b.name from sandbox b join session s on s.sandbox_id = b.id where s.id = $1'
      return (await sql<{ name: string }>(query, [sessionId]))[0]
    })
  return {
    pool,
    reaches: (sessionId: string, wanted: string) =>
      until(`${sessionId} is ${wanted}`, DEADLINE_MS, async () => {
        const [session] = await sql<{ status: string }>('select status from session where id = $1', [sessionId])
        return session?.status === wanted
      }),
    /** Its last turn has a checkpoint behind it, or will never have one. */
    checkpointed: (sessionId: string) =>
      until(`${sessionId} has a checkpoint`, DEADLINE_MS, async () => {
        const query =
          'select checkpoint_seq = (select max(seq) from turn where session_id = $1) whole from session where id = $1'
        return (await sql<{ whole: boolean }>(query, [sessionId]))[0]?.whole
      }),
    /** Exactly so many are there, all of them warm. */
    settles: (agentId: string, warm: number) =>
      until(`${warm} warm`, DEADLINE_MS, async () => {
        const held = await pool(agentId)
        return held.length === warm && held.every(({ state, retiring }) => state === 'warm' && !retiring) ? held : null
      }),
    tried: (deliveryId: string, times: number) =>
      until(`${deliveryId} was tried ${times} times`, DEADLINE_MS, async () => {
        const query = 'select from webhook_delivery where id = $1 and attempt_count >= $2'
        return (await sql(query, [deliveryId, times])).length === 1
      }),
    supervisorPid: async (sessionId: string): Promise<number> => {
      const file = path.join(sandboxDir, (await sandboxOf(sessionId)).name, 'sandbox.json')
      return until('a supervisor', DEADLINE_MS, () => {
        const record: { supervisor: { pid: number } } = JSON.parse(readFileSync(file, 'utf8'))
        return record.supervisor.pid
      })
    },
  }
}

/** What Temporal says. */
const createRuns = ({ workflow }: Client) => ({
  session: sessionWorkflowId,
  poolWorkflow: poolWorkflowId,
  delivery: webhookWorkflowId,
  runOf: async (workflowId: string): Promise<string> =>
    until(`a run of ${workflowId}`, DEADLINE_MS, async () => (await workflow.getHandle(workflowId).describe()).runId),
  /** Waits for the end of a workflow, in this run or a later one. */
  ended: async (workflowId: string): Promise<{ workflowId: string }> => {
    await until(`${workflowId} has ended`, DEADLINE_MS, async () => {
      const { status } = await workflow.getHandle(workflowId).describe()
      return status.name !== 'RUNNING'
    })
    return { workflowId }
  },
})

/** What users do, and what a change in the database needs to be seen. */
const createDeeds = (stack: Stack) => {
  const post = async <T>(route: string, body: object = {}): Promise<T> => {
    const reply = await stack.http<T>('POST', route, body)
    if (reply.status !== 200) throw new Error(`POST ${route}: ${reply.status} ${JSON.stringify(reply.body)}`)
    return reply.body
  }
  const nudge = (kind: 'signal_session' | 'poke_pool', id: string): Promise<unknown> =>
    stack.sql(
      'insert into outbox (kind, subject, created_at, attempts, next_at) values ($1, $2::uuid, now(), 0, now()) returning id',
      [kind, id],
    )
  return {
    wake: (sessionId: string) => nudge('signal_session', sessionId),
    poke: (agentId: string) => nudge('poke_pool', agentId),
    createAgent: async (name: string, more: object = {}): Promise<string> => {
      const agent = { name, model: 'scripted', harness_id: 'light', setup_cmd: `: ${name}`, ...more }
      return (await post<{ id: string }>('/agents', agent)).id
    },
    deleteAgent: (id: string) => stack.http('DELETE', `/agents/${id}`),
    open: async (agentId: string): Promise<string> => (await post<{ id: string }>(`/agents/${agentId}/session`)).id,
    openReady: async (agentId: string): Promise<string> =>
      (await post<{ id: string }>(`/agents/${agentId}/session?wait=ready`)).id,
    say: (sessionId: string, text: string) => stack.http('POST', `/sessions/${sessionId}/message`, { text }),
    deleteSession: (id: string) => stack.http('DELETE', `/sessions/${id}`),
    restart: (id: string) => post(`/sessions/${id}/restart`),
    /** A session has ended, and a new webhook is being told. */
    happening: async (url: string): Promise<{ webhook: string; delivery: string }> => {
      const { id: webhook } = await post<{ id: string }>('/webhooks', { url, events: ['session.ended'] })
      const agent = await post<{ id: string }>('/agents', { name: 'told', model: 'scripted', harness_id: 'light' })
      const session = await post<{ id: string }>(`/agents/${agent.id}/session`)
      await stack.http('DELETE', `/sessions/${session.id}`)
      const told = await stack.http<{ id: string }[]>('GET', `/webhooks/${webhook}/deliveries`)
      return { webhook, delivery: told.body[0]?.id ?? '' }
    },
    redeliver: (webhook: string, delivery: string) => post(`/webhooks/${webhook}/deliveries/${delivery}/redeliver`),
    streaming: (marker: string) =>
      until(`the model streams ${marker}`, DEADLINE_MS, () => (stack.model.askedFor(marker)[0]?.sent ?? 0) >= 3),
  }
}

/** What scenarios do, in the terms of the platform. */
export const createWorld = (stack: Stack, client: Client) => ({
  stack,
  client,
  ...createDeeds(stack),
  ...createViews(stack),
  ...createRuns(client),
})

export type World = ReturnType<typeof createWorld>
