import { type Env, isReadable } from './env.ts'
import type { Given, SettingProblem } from './problems.ts'

export type KubernetesConfig = {
  namespace: string
  /** Label of all objects of this installation. */
  instance: string
  api: 'sandbox' | 'pod'
  /** null: by where this process runs. */
  access: 'nodeport' | 'pod-ip' | null
  /** Where node ports are reached; null: at the address of the sandbox' node. */
  nodeHost: string | null
  /** Of the supervisor inside the pod. */
  supervisorPort: number
  unschedulableMs: number
  imagePullPolicy: 'Never' | 'IfNotPresent' | 'Always'
  imagePullSecrets: string[]
  resources: { requests: Record<'cpu' | 'memory', string>; limits: Record<'cpu' | 'memory', string> }
  workSize: string
  priorityClassName: string | null
  runtimeClassName: string | null
  serviceAccountName: string | null
  nodeSelector: Record<string, string>
  tolerations: NonNullable<Env['K8S_TOLERATIONS']>
  /** Ranges in CIDR notation, without host bits. */
  egress: {
    /** What no rule of an agent opens. */
    blocked: string[]
    /** What every sandbox reaches. */
    allowed: string[]
    /** Of the pods that are asked for names. */
    dnsPodLabels: Record<string, string>
  }
}

/** What a pod is made from besides its agent: not how it is reached, nor how long it may wait for a node. */
export const podSettingsOf = (
  k8s: KubernetesConfig,
): Omit<KubernetesConfig, 'access' | 'nodeHost' | 'unschedulableMs'> => {
  const { access: _access, nodeHost: _nodeHost, unschedulableMs: _unschedulableMs, ...pod } = k8s
  return pod
}

/** As kubectl has it: several files, separated by colons, and one that is not there counts as empty. Other programs use it, too. */
export const kubernetesProblems = (given: Given): SettingProblem[] => {
  const files = given['SANDBOX_DRIVER'] === 'local' ? undefined : given['KUBECONFIG']
  if (files?.split(':').some(isReadable) !== false) return []
  return [{ key: 'KUBECONFIG', reason: 'must be the path of a kubeconfig that this process can read' }]
}

export const kubernetesOf = (env: Env): KubernetesConfig => ({
  namespace: env.K8S_NAMESPACE,
  instance: env.K8S_INSTANCE,
  api: env.K8S_SANDBOX_API,
  access: env.K8S_ACCESS ?? null,
  nodeHost: env.K8S_NODE_HOST ?? null,
  supervisorPort: env.K8S_SUPERVISOR_PORT,
  unschedulableMs: env.K8S_UNSCHEDULABLE_GRACE_SECONDS * 1_000,
  imagePullPolicy: env.K8S_IMAGE_PULL_POLICY,
  imagePullSecrets: env.K8S_IMAGE_PULL_SECRETS ?? [],
  resources: {
    requests: { cpu: env.K8S_SANDBOX_CPU_REQUEST, memory: env.K8S_SANDBOX_MEMORY_REQUEST },
    limits: { cpu: env.K8S_SANDBOX_CPU_LIMIT, memory: env.K8S_SANDBOX_MEMORY_LIMIT },
  },
  workSize: env.K8S_SANDBOX_WORK_SIZE,
  priorityClassName: env.K8S_PRIORITY_CLASS ?? null,
  runtimeClassName: env.K8S_RUNTIME_CLASS ?? null,
  serviceAccountName: env.K8S_SERVICE_ACCOUNT ?? null,
  nodeSelector: env.K8S_NODE_SELECTOR ?? {},
  tolerations: env.K8S_TOLERATIONS ?? [],
  egress: {
    blocked: env.K8S_EGRESS_BLOCKED,
    allowed: env.K8S_EGRESS_ALLOW ?? [],
    dnsPodLabels: env.K8S_DNS_POD_LABELS,
  },
})
