/** Labels and annotations. Values are ids and states, never what a user has written. */
export const LABEL = {
  managedBy: 'app.kubernetes.io/managed-by',
  /** Which installation of LAP an object belongs to, by its settings: two may share a namespace. */
  instance: 'lap/instance',
  /** The id that is in the database of that installation: settings may be the same by mistake. */
  installation: 'lap/installation',
  sandbox: 'lap/sandbox',
  agent: 'lap/agent',
  template: 'lap/template',
  purpose: 'lap/purpose',
  /** `starting`, `ready`, `claimed`. */
  state: 'lap/state',
  session: 'lap/session',
  /** `own`: it has a NetworkPolicy of its own, and the chart's one that opens the public ranges is not for it. */
  egress: 'lap/egress',
} as const

export const MANAGED_BY = 'lap'

export const ANNOTATION = {
  /** The pod that became ready: another one under the same name is another sandbox. */
  podUid: 'lap/pod-uid',
  safeToEvict: 'cluster-autoscaler.kubernetes.io/safe-to-evict',
} as const

export const HARNESS_CONTAINER = 'harness'
export const VAULT_CONTAINER = 'vault'

export const selectorOf = (instance: string): string => `${LABEL.managedBy}=${MANAGED_BY},${LABEL.instance}=${instance}`

/** Selects the one pod of a sandbox. */
export const podSelector = (instance: string, sandboxId: string): Record<string, string> => ({
  [LABEL.instance]: instance,
  [LABEL.sandbox]: sandboxId,
})

/** Labels of every object of a sandbox. */
export const ownedBy = (
  { instance, installation }: { instance: string; installation: string },
  sandbox: { sandboxId: string; agentId: string },
): Record<string, string> => ({
  [LABEL.managedBy]: MANAGED_BY,
  [LABEL.instance]: instance,
  [LABEL.installation]: installation,
  [LABEL.sandbox]: sandbox.sandboxId,
  [LABEL.agent]: sandbox.agentId,
})
