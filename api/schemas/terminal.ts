import { z } from 'zod'
import { TTY_COLS_MAX, TTY_ROWS_MAX } from '../../domain/tty.ts'
import { queryNumber, Time } from './common.ts'

export const TerminalTicket = z
  .object({
    ticket: z.string().describe('Opens the terminal once. It is a secret for as long as it is good.'),
    expires_at: Time,
    url: z
      .string()
      .describe('Where it opens it, with the ticket in it: below the base URL, with `ws` in the place of `http`.'),
  })
  .meta({ id: 'TerminalTicket' })

export const TerminalQuery = z.object({
  ticket: z.string().optional().describe('Of `tty-ticket`.'),
  token: z.string().optional().describe('Another name for it.'),
  cols: queryNumber(1, TTY_COLS_MAX).optional().describe('Size of the screen, with `rows`; else it stays as it is.'),
  rows: queryNumber(1, TTY_ROWS_MAX).optional(),
})
