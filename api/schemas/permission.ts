import { z } from 'zod'
import { PERMISSION_DECISIONS, PERMISSION_KINDS } from '../../domain/permission.ts'
import { PERMISSION_STATUSES } from '../../domain/permission-status.ts'
import { Id, queryNumber, strict, Time } from './common.ts'

const RULES = ['allow', 'ask', 'deny'] as const
const Rule = z.enum(RULES, `must be one of ${RULES.join(', ')}`)

export const Permissions = strict({
  default: Rule,
  execute: Rule.exactOptional(),
  edit: Rule.exactOptional(),
  fetch: Rule.exactOptional(),
  other: Rule.exactOptional(),
}).meta({
  id: 'Permissions',
  description:
    'What a harness may do: `allow`: without asking; `ask`: what a client allows, see `permissions` of a session; `deny`: not. By kind of tool, and `default` for kinds without a rule: `execute` commands, `edit` files, `fetch` from the network, `other`, such as tools of MCP servers. Reading the workspace is always allowed.',
})

/** A rule alone holds for everything. */
export const PermissionsGiven = z.union([Permissions, Rule.transform((rule) => ({ default: rule }))], {
  error: `must be ${RULES.join(', ')}, or an object with one of these as default and, where another one is wanted, by kind: ${PERMISSION_KINDS.join(', ')}`,
})

export const Permission = z
  .object({
    id: Id,
    session_id: Id,
    turn_id: Id,
    kind: z.string().describe(`One of ${PERMISSION_KINDS.join(', ')}.`),
    title: z.string().describe('What would be done, for people.'),
    tool: z.object({
      name: z.string().describe('As the harness names it.'),
      call_id: z.string().nullable().describe('`callID` of the tool part in the reply.'),
      input: z.unknown(),
    }),
    status: z
      .enum(PERMISSION_STATUSES)
      .describe(
        '`open` until it is answered (`allowed`, `denied`), nobody has answered in time (`expired`: the harness is told no), or its turn is over (`cancelled`).',
      ),
    decision: z.enum(PERMISSION_DECISIONS).nullable(),
    decided_by: z
      .string()
      .nullable()
      .describe('`user`, or why nobody had to: `deadline`, `turn_over`, `session_ended`.'),
    asked_at: Time,
    expires_at: Time,
    decided_at: Time.nullable(),
    delivered_at: Time.nullable().describe('When the harness had the answer, or could not take it any more.'),
  })
  .meta({ id: 'Permission' })
export type Permission = z.output<typeof Permission>

export const PermissionList = z.array(Permission).meta({ id: 'PermissionList' })

export const PermissionListQuery = z.object({
  status: z.enum(PERMISSION_STATUSES, `must be one of ${PERMISSION_STATUSES.join(', ')}`).optional(),
  limit: queryNumber(1, 200).default(200).describe('The newest ones.'),
})

export const PermissionReply = strict({
  decision: z
    .enum(PERMISSION_DECISIONS, `must be one of ${PERMISSION_DECISIONS.join(', ')}`)
    .describe(
      '`allow_always`: also what the harness takes for the same, for the rest of the session, where it knows of that; else as `allow`.',
    ),
}).meta({ id: 'PermissionReply' })
