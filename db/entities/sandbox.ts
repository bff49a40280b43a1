import { defineEntity, p } from '@mikro-orm/core'
import type { SandboxPurpose, SandboxState } from '../../domain/sandbox.ts'
import type { FailureCode } from '../../domain/session.ts'
import type { TurnUsage } from '../../domain/turn.ts'

export type SandboxRow = {
  id: string
  agent_id: string
  template_hash: string
  purpose: SandboxPurpose
  state: SandboxState
  session_id: string | null
  /** Grows at each hand-over; every later write carries it. */
  epoch: number
  name: string
  driver: string
  harness_id: string
  image: string
  endpoint: string | null
  created_at: Date
  ready_at: Date | null
  claimed_at: Date | null
  ended_at: Date | null
  /** Being replaced: still claimable, and its place in the budget belongs to its replacement. */
  retiring: boolean
  failure_code: FailureCode | null
  failure_message: string | null
  evidence: Record<string, unknown> | null
  /** What it last said that was used outside of turns; all of it is in the usage of its session. */
  usage_outside_turns: TurnUsage | null
}

export const Sandbox = defineEntity({
  name: 'Sandbox',
  tableName: 'sandbox',
  properties: {
    id: p.uuid().primary(),
    agent_id: p.uuid(),
    template_hash: p.text(),
    purpose: p.text(),
    state: p.text(),
    session_id: p.uuid().nullable(),
    epoch: p.integer(),
    name: p.text().unique(),
    driver: p.text(),
    harness_id: p.text(),
    image: p.text(),
    endpoint: p.text().nullable(),
    created_at: p.datetime(3),
    ready_at: p.datetime(3).nullable(),
    claimed_at: p.datetime(3).nullable(),
    ended_at: p.datetime(3).nullable(),
    retiring: p.boolean(),
    failure_code: p.text().nullable(),
    failure_message: p.text().nullable(),
    evidence: p.json<Record<string, unknown>>().nullable(),
    usage_outside_turns: p.json<TurnUsage>().nullable(),
  },
})
