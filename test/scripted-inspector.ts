import { afterEach, beforeEach } from '@jest/globals'
import { createKubernetesInspector } from '../kubernetes/inspector.ts'
import type { KubernetesInspectorOptions } from '../kubernetes/inspector.ts'
import type { SandboxInspector } from '../sandbox/inspector.ts'
import { startScriptedCluster } from './scripted-cluster.ts'
import type { ScriptedCluster } from './scripted-cluster.ts'

/** Paths in the scripted cluster. */
export const SANDBOXES = '/apis/agents.x-k8s.io/v1beta1/namespaces/sandboxes/sandboxes'
export const CORE = '/api/v1/namespaces/sandboxes'

/** A new one, which has seen nothing yet. */
export const inspectorOf = (
  { client }: ScriptedCluster,
  over: Partial<KubernetesInspectorOptions> = {},
): SandboxInspector =>
  createKubernetesInspector({ client, api: 'sandbox', namespace: 'sandboxes', access: 'nodeport', ...over })

/** Gives each test of a file a cluster and an inspector of its own. */
export const eachInspected = (): { cluster: ScriptedCluster; inspector: SandboxInspector } => {
  const own = {} as { cluster: ScriptedCluster; inspector: SandboxInspector }
  beforeEach(async () => {
    own.cluster = await startScriptedCluster()
    own.inspector = inspectorOf(own.cluster)
  })
  afterEach(async () => own.cluster[Symbol.asyncDispose]())
  return own
}
