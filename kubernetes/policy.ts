import { AppError } from '../domain/errors.ts'
import type { SandboxSpec } from '../sandbox/driver.ts'
import { getOrNull } from './cluster.ts'
import type { Cluster } from './cluster.ts'
import { blocksOf } from './egress.ts'
import { hasStatus } from './errors.ts'
import { ownerOf } from './manifest.ts'
import type { PodSettings } from './manifest.ts'
import { LABEL, ownedBy, podSelector } from './names.ts'
import { pathOf } from './objects.ts'
import type { IpBlock, NetworkPolicy, OwnerReference } from './objects.ts'
import { isOurs, rejected, write } from './write.ts'

const dnsPort = 53

/** The policy of one sandbox. Policies add up, so it holds beside those of the installation, and without them. */
export const policyOf = (
  spec: Pick<SandboxSpec, 'name' | 'sandboxId' | 'agentId'>,
  settings: Pick<PodSettings, 'namespace' | 'instance' | 'installation' | 'egress'>,
  blocks: IpBlock[],
) => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: {
    name: spec.name,
    namespace: settings.namespace,
    labels: ownedBy(settings, spec),
  },
  spec: {
    podSelector: { matchLabels: podSelector(settings.instance, spec.sandboxId) },
    policyTypes: ['Egress'],
    egress: [
      {
        // Nobody else's port 53: it would be a way out.
        to: [{ namespaceSelector: {}, podSelector: { matchLabels: settings.egress.dnsPodLabels } }],
        ports: ['UDP', 'TCP'].map((protocol) => ({ protocol, port: dnsPort })),
      },
      // A rule to nowhere would be one to everywhere.
      ...(blocks.length === 0 ? [] : [{ to: blocks.map((ipBlock) => ({ ipBlock })) }]),
    ],
  },
})

type Policy = ReturnType<typeof policyOf>

const refused = (error: unknown): unknown =>
  rejected(
    error,
    'the egress rules of its agent need a NetworkPolicy (rights: create, get, list, patch, delete networkpolicies.networking.k8s.io), which was refused',
  )

const patchPolicy = (cluster: Cluster, name: string, body: object): Promise<unknown> =>
  write(cluster, { method: 'PATCH', path: pathOf('networkpolicies', cluster.settings.namespace, name), body })

/** By an earlier try. Agent or settings may have changed since. */
const renewPolicy = async (cluster: Cluster, wanted: Policy): Promise<void> => {
  const { client, settings } = cluster
  const { name } = wanted.metadata
  const found = await getOrNull<NetworkPolicy>(client, pathOf('networkpolicies', settings.namespace, name))
  if (found === null) throw new AppError('unavailable', `NetworkPolicy ${name} was there and is gone`)
  if (!isOurs(found, settings.instance))
    throw new AppError('invalid', `NetworkPolicy ${name} exists and belongs to somebody else`)
  await patchPolicy(cluster, name, { spec: wanted.spec })
}

const post = (cluster: Cluster, body: object): Promise<unknown> =>
  write(cluster, { method: 'POST', path: pathOf('networkpolicies', cluster.settings.namespace), body })

/**
 * Comes before the sandbox, so that no pod ever runs without it.
 * @returns null: the sandbox needs none
 * @throws SandboxFailedError when it may not be made: without it the sandbox must not be
 */
export const createPolicy = async (cluster: Cluster, spec: SandboxSpec): Promise<Policy | null> => {
  const { settings } = cluster
  const blocks = blocksOf(spec, settings.egress)
  if (blocks === null) return null
  const policy = policyOf(spec, settings, blocks)
  try {
    await post(cluster, policy).catch((error: unknown) => {
      if (!hasStatus(error, 409)) throw error
      return renewPolicy(cluster, policy)
    })
  } catch (error) {
    throw refused(error)
  }
  return policy
}

/** From now on it goes with the sandbox. */
export const ownPolicy = async (cluster: Cluster, policy: Policy, owner: OwnerReference): Promise<void> => {
  const metadata = { ownerReferences: [owner] }
  try {
    await patchPolicy(cluster, policy.metadata.name, { metadata }).catch((error: unknown) => {
      if (!hasStatus(error, 404)) throw error
      // Somebody has removed what he took for a sandbox that is not there; now it is, and must not be without.
      return post(cluster, { ...policy, metadata: { ...policy.metadata, ...metadata } })
    })
  } catch (error) {
    throw refused(error)
  }
}

/** The pod ends some seconds after its `Sandbox`: until then the policy stays, too. */
export const keepPolicy = async (cluster: Cluster, name: string, podUid: string): Promise<void> => {
  const { uid, labels } = cluster.objects.get(name)?.metadata ?? {}
  if (cluster.settings.api === 'pod' || uid === undefined || labels?.[LABEL.egress] !== 'own') return
  const ownerReferences = [ownerOf('sandbox', name, uid), ownerOf('pod', name, podUid)]
  await patchPolicy(cluster, name, { metadata: { ownerReferences } })
}
