import { covers, parseRange, type Range } from '../../domain/cidr.ts'
import type { IpBlock, KubeObject } from '../../kubernetes/objects.ts'

/** What NetworkPolicies say of one connection, as a plugin that keeps them would decide it: <https://kubernetes.io/docs/concepts/services-networking/network-policies/>. */

type Labels = Record<string, string>
type Selector = {
  matchLabels?: Labels
  matchExpressions?: { key: string; operator: string; values?: string[] }[]
}
type Peer = { ipBlock?: IpBlock; podSelector?: Selector; namespaceSelector?: Selector }
export type StoredPolicy = KubeObject & {
  spec: {
    podSelector: Selector
    policyTypes: string[]
    egress?: { to?: Peer[]; ports?: { protocol?: string; port?: number }[] }[]
  }
}

/** Somebody outside the cluster, or a pod. */
export type Destination = { port: number; protocol?: 'TCP' | 'UDP' } & (
  | { address: string }
  | { namespace: string; namespaceLabels: Labels; labels: Labels }
)

/** @param selector as an object has it */
export const selects = (selector: unknown, labels: Labels): boolean => {
  const { matchLabels = {}, matchExpressions = [] } = selector as Selector
  const matches = ({ key, operator, values = [] }: (typeof matchExpressions)[number]): boolean => {
    if (operator === 'Exists') return key in labels
    if (operator === 'DoesNotExist') return !(key in labels)
    if (operator === 'In') return key in labels && values.includes(labels[key] ?? '')
    if (operator === 'NotIn') return !values.includes(labels[key] ?? '')
    throw new Error(`There is no operator ${operator}`)
  }
  return Object.entries(matchLabels).every(([key, value]) => labels[key] === value) && matchExpressions.every(matches)
}

const rangeOf = (text: string): Range => {
  const range = parseRange(text)
  if (range === null) throw new Error(`${text} is no range`)
  return range
}

const isPeer = (peer: Peer, to: Destination, ownNamespace: string): boolean => {
  const { ipBlock, podSelector, namespaceSelector } = peer
  if ('address' in to) {
    if (ipBlock === undefined) return false
    const at = rangeOf(to.address)
    return covers(rangeOf(ipBlock.cidr), at) && !(ipBlock.except ?? []).some((one) => covers(rangeOf(one), at))
  }
  if (ipBlock !== undefined) return false
  const isNamespace =
    namespaceSelector === undefined ? to.namespace === ownNamespace : selects(namespaceSelector, to.namespaceLabels)
  return isNamespace && (podSelector === undefined || selects(podSelector, to.labels))
}

/** Policies add up; a pod that none selects reaches everything. What is left out or empty in a rule is everything, too. */
export const reaches = (policies: StoredPolicy[], pod: KubeObject, to: Destination): boolean => {
  const { labels = {}, namespace = '' } = pod.metadata
  const own = policies.filter(
    ({ metadata, spec }) =>
      metadata.namespace === namespace && spec.policyTypes.includes('Egress') && selects(spec.podSelector, labels),
  )
  if (own.length === 0) return true
  const rules = own.flatMap(({ spec }) => spec.egress ?? [])
  return rules.some(
    ({ to: peers = [], ports = [] }) =>
      (peers.length === 0 || peers.some((peer) => isPeer(peer, to, namespace))) &&
      (ports.length === 0 ||
        ports.some(
          ({ port, protocol = 'TCP' }) =>
            protocol === (to.protocol ?? 'TCP') && (port === undefined || port === to.port),
        )),
  )
}
