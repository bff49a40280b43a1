import { defineEntity, p } from '@mikro-orm/core'

export const TerminalTicket = defineEntity({
  name: 'TerminalTicket',
  tableName: 'terminal_ticket',
  properties: {
    hash: p.text().primary(),
    session_id: p.uuid(),
    caller: p.text(),
    created_at: p.datetime(3),
    expires_at: p.datetime(3),
  },
})
