import { randomUUID } from 'node:crypto'
import { claimForSession } from '../db/claims.ts'
import type { NewSession } from '../db/claims.ts'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import type { SessionRow } from '../db/entities/session.ts'
import type { TurnRow } from '../db/entities/turn.ts'
import { appendEvents, readEvents } from '../db/events.ts'
import { sandboxFailed } from '../db/sandboxes.ts'
import { getSession, sessionReady } from '../db/sessions.ts'
import type { Sql } from '../db/sql.ts'
import { enqueueTurn } from '../db/turns.ts'
import type { PermissionRequest } from '../domain/permission.ts'
import type { TurnUsage } from '../domain/turn.ts'
import { buildAgent, buildSession, buildWarmSandbox } from './builders.ts'

/** A session that is ready, in a sandbox of rows alone, and what its user and its harness do. */
export type Conversation = {
  id: string
  sandbox: SandboxRow
  session(): Promise<SessionRow>
  send(text: string, more?: { key?: string }): Promise<TurnRow>
  turns(): Promise<TurnRow[]>
  /** Types of the log with what they say, from `after` on. */
  log(after?: number): Promise<{ type: string; data: Record<string, unknown> }[]>
  /** The harness ends a turn, as its journal tells it. */
  finish(turnId: string, usage?: TurnUsage, status?: 'done' | 'cancelled'): Promise<void>
  /** The harness asks. */
  ask(turnId: string, options?: { waitMs?: number; journalSeq?: number; requestId?: string }): Promise<void>
  /** The sandbox is lost, and there is another one. */
  move(): Promise<SandboxRow>
}

export const question = (id = `per_${randomUUID()}`): PermissionRequest => ({
  id,
  kind: 'execute',
  title: 'rm -rf build',
  tool: { name: 'bash', call_id: 'call_1', input: { command: 'rm -rf build' } },
})

export const buildConversation = async (sql: Sql, over: Partial<NewSession> = {}): Promise<Conversation> => {
  const agent = await buildAgent(sql)
  const claim = { templateHash: agent.id, poolSize: 9, recentAgentHours: 24 }
  await buildWarmSandbox(sql, agent.id, { templateHash: agent.id })
  const { session, sandbox } = await buildSession(sql, agent.id, { claim, ...over })
  const { id } = session
  await sessionReady(sql, { sessionId: id, attempt: 1, harnessSessionId: 'ses', phases: {} })
  let journal = 0
  const journalSeq = (): number => ++journal
  const append = { sessionId: id, sandboxId: sandbox!.id }
  return {
    id,
    sandbox: sandbox!,
    session: async () => (await getSession(sql, id))!,
    async send(text, { key } = {}) {
      const keyed =
        key === undefined ? { idempotencyKey: null, bodyHash: null } : { idempotencyKey: key, bodyHash: text }
      const parts = [{ type: 'text', text }]
      return (await enqueueTurn(sql, { sessionId: id, turnId: randomUUID(), parts, model: null, ...keyed })).turn
    },
    turns: () => sql.query<TurnRow>('select * from turn where session_id = $1 order by seq', [id]),
    async log(after = 0) {
      const { events } = await readEvents(sql, { sessionId: id, after, limit: 500 })
      return events.map(({ type, data }) => ({ type, data }))
    },
    async finish(
      turnId,
      usage = { input_tokens: 10, output_tokens: 5, cached_tokens: 0, requests: 1, cost_usd: null },
      status = 'done',
    ) {
      const turnEnd = { turnId, status, reply: { info: {}, parts: [] }, error: null, usage }
      const entries = [{ journalSeq: journalSeq(), type: 'turn.finished' as const, data: { turn_id: turnId, status } }]
      await appendEvents(sql, { ...append, entries, turnEnd })
    },
    async ask(turnId, { waitMs = 60_000, journalSeq: seq = journalSeq(), requestId } = {}) {
      const asks = { turnId, request: question(requestId), waitMs }
      await appendEvents(sql, { ...append, entries: [{ journalSeq: seq, type: 'permission.asked', data: {}, asks }] })
    },
    async move() {
      await sandboxFailed(sql, sandbox!.id, { code: 'sandbox_lost', message: 'gone', evidence: null })
      await buildWarmSandbox(sql, agent.id, { templateHash: agent.id })
      return (await claimForSession(sql, id, claim))!.sandbox!
    },
  }
}
