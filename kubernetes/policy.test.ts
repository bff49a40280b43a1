import { expect, test } from '@jest/globals'
import type { IpBlock } from './objects.ts'
import { policyOf } from './policy.ts'

const spec = { name: 'lap-sandbox-1', sandboxId: 'sandbox-1', agentId: 'agent-1' }
const settings = {
  namespace: 'sandboxes',
  instance: 'lap',
  installation: 'this-one',
  egress: { blocked: [], allowed: [], dnsPodLabels: { 'k8s-app': 'kube-dns' } },
}
const blocks: IpBlock[] = [{ cidr: '192.0.2.0/24' }, { cidr: '::/0', except: ['fc00::/7'] }]

const dns = {
  to: [{ namespaceSelector: {}, podSelector: { matchLabels: { 'k8s-app': 'kube-dns' } } }],
  ports: [
    { protocol: 'UDP', port: 53 },
    { protocol: 'TCP', port: 53 },
  ],
}

test('a policy is for the one pod of its sandbox, and says nothing of who may come in', () => {
  expect(policyOf(spec, settings, blocks)).toEqual({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: {
      name: 'lap-sandbox-1',
      namespace: 'sandboxes',
      labels: {
        'app.kubernetes.io/managed-by': 'lap',
        'lap/instance': 'lap',
        'lap/installation': 'this-one',
        'lap/sandbox': 'sandbox-1',
        'lap/agent': 'agent-1',
      },
    },
    spec: {
      podSelector: { matchLabels: { 'lap/instance': 'lap', 'lap/sandbox': 'sandbox-1' } },
      policyTypes: ['Egress'],
      egress: [
        dns,
        { to: [{ ipBlock: { cidr: '192.0.2.0/24' } }, { ipBlock: { cidr: '::/0', except: ['fc00::/7'] } }] },
      ],
    },
  })
})

test('nothing to be reached is no rule: one to nowhere would be one to everywhere', () => {
  expect(policyOf(spec, settings, []).spec.egress).toEqual([dns])
})
