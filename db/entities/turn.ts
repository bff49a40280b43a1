import { defineEntity, p } from '@mikro-orm/core'
import type { MessagePart, TurnReply, TurnStatus, TurnUsage } from '../../domain/turn.ts'

export type TurnRow = {
  id: string
  session_id: string
  seq: number
  status: TurnStatus
  idempotency_key: string | null
  body_hash: string | null
  parts: MessagePart[]
  model: string | null
  reply: TurnReply | null
  error: { code: string; message: string } | null
  usage: TurnUsage | null
  /** The sandbox in which it runs or ran. */
  sandbox_id: string | null
  created_at: Date
  started_at: Date | null
  finished_at: Date | null
  /** When it was last changed while it waited. */
  edited_at: Date | null
  /** Somebody wants it to stop; its sandbox is told until it has heard. */
  interrupt_requested_at: Date | null
}

export const Turn = defineEntity({
  name: 'Turn',
  tableName: 'turn',
  properties: {
    id: p.uuid().primary(),
    session_id: p.uuid(),
    seq: p.integer(),
    status: p.text(),
    idempotency_key: p.text().nullable(),
    body_hash: p.text().nullable(),
    parts: p.json<MessagePart[]>(),
    model: p.text().nullable(),
    reply: p.json<TurnReply>().nullable(),
    error: p.json<{ code: string; message: string }>().nullable(),
    usage: p.json<TurnUsage>().nullable(),
    sandbox_id: p.uuid().nullable(),
    created_at: p.datetime(3),
    started_at: p.datetime(3).nullable(),
    finished_at: p.datetime(3).nullable(),
    edited_at: p.datetime(3).nullable(),
    interrupt_requested_at: p.datetime(3).nullable(),
  },
})
