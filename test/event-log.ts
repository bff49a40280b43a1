import type { ApiDeps } from '../api/deps.ts'
import { appendEvents } from '../db/events.ts'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import type { SessionRow } from '../db/entities/session.ts'
import { sessionReady } from '../db/sessions.ts'
import type { Sql } from '../db/sql.ts'
import { enqueueTurn } from '../db/turns.ts'
import type { TurnReply } from '../domain/turn.ts'
import type { HarnessEvent } from '../supervisor/harness.ts'
import { randomUUID } from 'node:crypto'
import { buildAgent, buildSession, buildWarmSandbox } from './builders.ts'
import { question } from './conversation.ts'

/** A ready session whose log a test writes as the worker does. */
export type WrittenSession = {
  id: string
  sandbox: SandboxRow
  /** Appends events of the harness, numbered on from the last. */
  say(count: number): Promise<void>
  /** Appends what a harness said amid a turn. */
  hear(turnId: string | null, events: HarnessEvent[]): Promise<void>
  /** The harness asks amid a turn. */
  ask(turnId: string): Promise<void>
  /** A message, begun. @returns the turn's id */
  begin(text?: string): Promise<string>
  /** The end of a turn, with this reply, or with one of one word. */
  finish(turnId: string, reply?: TurnReply | null): Promise<void>
  lastSeq(): Promise<number>
}

export const buildWrittenSession = async ({ sql }: { sql: Sql } | ApiDeps): Promise<WrittenSession> => {
  const agent = await buildAgent(sql)
  await buildWarmSandbox(sql, agent.id, { templateHash: agent.id })
  const claim = { templateHash: agent.id, poolSize: 9, recentAgentHours: 24 }
  const { session, sandbox } = await buildSession(sql, agent.id, { claim })
  const { id } = session
  await sessionReady(sql, { sessionId: id, attempt: 1, harnessSessionId: 'ses_1', phases: {} })
  if (sandbox === null) throw new Error('the sandbox was not claimed')
  let journalSeq = 0
  return {
    id,
    sandbox,
    async say(count) {
      const entries = Array.from({ length: count }, () => {
        journalSeq++
        const data = { type: 'message.part.delta', properties: { sessionID: 'ses_1', delta: `word${journalSeq}` } }
        return { type: 'harness' as const, data, journalSeq }
      })
      await appendEvents(sql, { sessionId: id, sandboxId: sandbox.id, entries })
    },
    async hear(turnId, events) {
      const entries = events.map((event) => ({
        type: 'harness' as const,
        data: { turn_id: turnId, ...event },
        journalSeq: ++journalSeq,
      }))
      await appendEvents(sql, { sessionId: id, sandboxId: sandbox.id, entries })
    },
    async ask(turnId) {
      const asks = { turnId, request: question(), waitMs: 60_000 }
      const entries = [{ type: 'permission.asked' as const, data: {}, journalSeq: ++journalSeq, asks }]
      await appendEvents(sql, { sessionId: id, sandboxId: sandbox.id, entries })
    },
    async begin(text = 'Go') {
      const turnId = randomUUID()
      const parts = [{ type: 'text', text }]
      await enqueueTurn(sql, { sessionId: id, turnId, parts, model: null, idempotencyKey: null, bodyHash: null })
      return turnId
    },
    async finish(turnId, reply = { info: { role: 'assistant' }, parts: [{ type: 'text', text: 'Done.' }] }) {
      const data = { turn_id: turnId, status: 'done', error: null, usage: null }
      await appendEvents(sql, {
        sessionId: id,
        sandboxId: sandbox.id,
        entries: [{ type: 'turn.finished', data, journalSeq: ++journalSeq }],
        turnEnd: { turnId, status: 'done', reply, error: null, usage: null },
      })
    },
    lastSeq: async () =>
      (await sql.one<Pick<SessionRow, 'last_seq'>>('select last_seq from session where id = $1', [id]))!.last_seq,
  }
}
