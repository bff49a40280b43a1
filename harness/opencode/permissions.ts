import {
  type PermissionDecision,
  type PermissionKind,
  type PermissionPolicy,
  type PermissionRequest,
  type PermissionRule,
  allowsAll,
  ruleFor,
} from '../../domain/permission.ts'
import type { HarnessEvent } from '../../supervisor/harness.ts'

/** opencode's names of what it asks for, https://opencode.ai/docs/permissions, by our kinds. What is in neither list is `other`. */
const KINDS: Record<string, PermissionKind> = { bash: 'execute', edit: 'edit', webfetch: 'fetch', websearch: 'fetch' }
const HARMLESS = ['read', 'glob', 'grep', 'list', 'lsp', 'skill', 'todoread', 'todowrite']

type Ruleset = { permission: string; pattern: '*'; action: PermissionRule }[]

/** The rules of a session; the last that fits holds. */
export const rulesetOf = (policy: PermissionPolicy): Ruleset => {
  const rule = (permission: string, action: PermissionRule) => ({ permission, pattern: '*' as const, action })
  if (allowsAll(policy)) return []
  return [
    rule('*', ruleFor(policy, 'other')),
    ...HARMLESS.map((name) => rule(name, 'allow')),
    ...Object.entries(KINDS).map(([name, kind]) => rule(name, ruleFor(policy, kind))),
    // A subagent works in a session of its own, which these rules do not reach; and nobody answers questions of another kind.
    rule('task', 'deny'),
    rule('question', 'deny'),
  ]
}

type Asked = {
  id?: string
  sessionID?: string
  permission?: string
  patterns?: string[]
  metadata?: Record<string, unknown>
  tool?: { callID?: string }
}

/** The question in an event of the bus, or null. */
export const askedBy = ({
  type,
  properties,
}: HarnessEvent): { conversation: string; request: PermissionRequest } | null => {
  if (type !== 'permission.asked') return null
  const { id = '', sessionID = '', permission = '', patterns = [], metadata = {}, tool } = properties as Asked
  const command = metadata['command']
  const title = typeof command === 'string' ? command : patterns.join(' ')
  const call = { name: permission, call_id: tool?.callID ?? null, input: metadata }
  return { conversation: sessionID, request: { id, kind: KINDS[permission] ?? 'other', title, tool: call } }
}

/** A refusal without words would end the turn; with some the model hears them and goes on. */
const REPLIES: Record<PermissionDecision, { reply: 'once' | 'always' | 'reject'; message?: string }> = {
  allow: { reply: 'once' },
  allow_always: { reply: 'always' },
  deny: { reply: 'reject', message: 'The user does not allow this.' },
}

export const replyOf = (decision: PermissionDecision): object => REPLIES[decision]
