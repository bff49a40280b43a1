import type { Problem } from '../sandbox/inspector.ts'
import type { KubeClient } from './client.ts'
import type { PodSettings } from './manifest.ts'
import { LABEL, MANAGED_BY } from './names.ts'
import { pathOf, resourceOf } from './objects.ts'
import type { KubeList, KubeObject } from './objects.ts'

export type NeighbourOptions = {
  client: Pick<KubeClient, 'json'>
  settings: Pick<PodSettings, 'api' | 'namespace' | 'instance' | 'installation'>
}

const oneOf = async ({ client, settings }: NeighbourOptions, labels: string[]): Promise<KubeObject | undefined> => {
  const labelSelector = [`${LABEL.managedBy}=${MANAGED_BY}`, ...labels].join(',')
  const path = pathOf(resourceOf(settings.api), settings.namespace)
  return (await client.json<KubeList<KubeObject>>({ path, query: { labelSelector, limit: 1 } })).items[0]
}

/**
 * Sandboxes whose labels do not fit together, by asking for one of each kind: those of another installation with the instance of this one, and those of this one
 * with another instance, which it had before.
 */
export const neighbourProblems = async (options: NeighbourOptions): Promise<Problem[]> => {
  const { namespace, instance, installation } = options.settings
  const { installation: made, instance: named } = LABEL
  const [stranger, leftOver] = await Promise.all([
    oneOf(options, [`${named}=${instance}`, made, `${made}!=${installation}`]),
    oneOf(options, [`${made}=${installation}`, `${named}!=${instance}`]),
  ])
  const problems: Problem[] = []
  if (stranger !== undefined)
    problems.push({
      what: `Another installation has sandboxes in namespace ${namespace} with K8S_INSTANCE=${instance}, too.`,
      detail: `${stranger.metadata.name} has ${made}=${stranger.metadata.labels?.[made]}, this one is ${installation}`,
      remedy:
        'Give one of them another K8S_INSTANCE (the chart: sandbox.instance), after its sessions have ended. If its database is gone for good, delete its sandboxes by that label.',
    })
  if (leftOver !== undefined) {
    const before = leftOver.metadata.labels?.[named]
    problems.push({
      what: `Sandboxes of this installation in namespace ${namespace} have ${named}=${before}, and K8S_INSTANCE is ${instance}: nobody removes them.`,
      detail: `for instance ${leftOver.metadata.name}`,
      remedy: `Set K8S_INSTANCE=${before} again until its sessions have ended, or delete them: kubectl -n ${namespace} delete sandboxes,pods,services,networkpolicies -l ${made}=${installation},${named}=${before} (without agent-sandbox leave out "sandboxes,")`,
    })
  }
  return problems
}
