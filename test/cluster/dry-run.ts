import type { Kube } from '../../tools/cluster/kube.ts'
import type { Rendered } from './helm.ts'
import { eventually, getOrNull } from './namespace.ts'

/** Of the operator's definition only the kind: whether it takes each field is not shown by this. A cluster that has the operator is used as it is. */
export const ensureServiceMonitors = async (on: Kube): Promise<void> => {
  const crds = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
  const name = 'servicemonitors.monitoring.coreos.com'
  if ((await getOrNull(on, `${crds}/${name}`)) === null)
    await on.create(crds, {
      apiVersion: 'apiextensions.k8s.io/v1',
      kind: 'CustomResourceDefinition',
      metadata: { name },
      spec: {
        group: 'monitoring.coreos.com',
        scope: 'Namespaced',
        names: { kind: 'ServiceMonitor', plural: 'servicemonitors' },
        versions: [
          {
            name: 'v1',
            served: true,
            storage: true,
            schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
          },
        ],
      },
    })
  await eventually(() => getOrNull(on, '/apis/monitoring.coreos.com/v1'))
}

/** All that the API server does but for writing it down; a field that it does not know is an error. @returns the kind */
export const dryRun = async (on: Kube, { kind, ...object }: Rendered): Promise<string> => {
  const { apiVersion, metadata } = object
  const group = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`
  const { resources } = await on.get<{ resources: { kind: string; name: string }[] }>(group)
  const resource = resources.find((one) => one.kind === kind && !one.name.includes('/'))?.name
  const where = metadata.namespace === undefined ? '' : `/namespaces/${metadata.namespace}`
  const path = `${group}${where}/${resource}?dryRun=All&fieldValidation=Strict`
  try {
    await on.create(path, { kind, ...object })
  } catch (error) {
    throw new Error(`${kind} ${metadata.name} was refused`, { cause: error })
  }
  return kind
}
