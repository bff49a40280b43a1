/** What a session's harness may do without asking. */
export type PermissionRule = 'allow' | 'ask' | 'deny'

/**
 * What is asked for: `execute` a command, `edit` files (also delete, move), `fetch` from the network, `other`: everything else, tools of MCP servers
 * among it. Reading the workspace is never asked for.
 */
export const PERMISSION_KINDS = ['execute', 'edit', 'fetch', 'other'] as const
export type PermissionKind = (typeof PERMISSION_KINDS)[number]

/** `default` holds for kinds without a rule of their own. */
export type PermissionPolicy = { default: PermissionRule } & { [kind in PermissionKind]?: PermissionRule }

/** `allow_always`: also whatever the harness takes for the same, until the session ends. */
export const PERMISSION_DECISIONS = ['allow', 'allow_always', 'deny'] as const
export type PermissionDecision = (typeof PERMISSION_DECISIONS)[number]

/** A question of a harness; the tool call waits for its answer. */
export type PermissionRequest = {
  id: string
  kind: PermissionKind
  /** For people: what would be done, such as the command. */
  title: string
  /** As in the part of the reply; `call_id` null when the harness does not say which call it is. */
  tool: { name: string; call_id: string | null; input: unknown }
}

export const ALLOW_ALL: PermissionPolicy = { default: 'allow' }

export const ruleFor = (policy: PermissionPolicy, kind: PermissionKind): PermissionRule =>
  policy[kind] ?? policy.default

/** Whether the harness never has to ask. */
export const allowsAll = (policy: PermissionPolicy): boolean =>
  PERMISSION_KINDS.every((kind) => ruleFor(policy, kind) === 'allow')
