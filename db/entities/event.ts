import { defineEntity, p } from '@mikro-orm/core'

export const Event = defineEntity({
  name: 'Event',
  tableName: 'event',
  properties: {
    session_id: p.uuid().primary(),
    seq: p.integer().primary(),
    type: p.text(),
    data: p.json<Record<string, unknown>>(),
    created_at: p.datetime(3),
    sandbox_id: p.uuid().nullable(),
    journal_seq: p.integer().nullable(),
  },
})
