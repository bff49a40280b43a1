import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { createAuthority, createSigningKey } from './certificates.ts'
import { kubeconfigText } from './kube.ts'

/** The node that is one: see node.ts. */
export const REAL_NODE = 'real-0'

/**
 * Who speaks to the API server. `system:masters` is exempt from priority and fairness; the tester and the controller are not, as nobody is on a real cluster, and
 * have their rights by a cluster role binding.
 */
const USERS = {
  admin: { user: 'admin', group: 'system:masters' },
  tester: { user: 'tester', group: 'lap:testers' },
  controller: { user: 'sandbox-controller', group: 'lap:testers' },
  'kube-controller-manager': { user: 'system:kube-controller-manager', group: 'system:masters' },
  'kube-scheduler': { user: 'system:kube-scheduler', group: 'system:masters' },
  kwok: { user: 'kwok', group: 'system:masters' },
  kubelet: { user: `system:node:${REAL_NODE}`, group: 'system:nodes' },
  'kube-proxy': { user: 'system:kube-proxy', group: 'system:node-proxier' },
} as const

export const TESTERS_GROUP = USERS.tester.group

export type User = keyof typeof USERS

export type Credentials = { ca: string; tokens: Record<User, string> }

export const kubeconfigOf = (dir: string, user: User): string => path.join(dir, `${user}.kubeconfig`)

/** Writes keys, certificates, tokens and a kubeconfig for each user into the folder. @param addresses of the API server, beside the loopback's */
export const writeCredentials = async (dir: string, server: string, addresses: string[]): Promise<Credentials> => {
  const pki = path.join(dir, 'pki')
  await mkdir(pki, { recursive: true, mode: 0o700 })
  const write = (name: string, text: string): Promise<void> => writeFile(path.join(pki, name), text, { mode: 0o600 })
  const authority = createAuthority('lap-cluster')
  const names = ['localhost', 'kubernetes', 'kubernetes.default', 'kubernetes.default.svc', '127.0.0.1', ...addresses]
  const serving = authority.issue({ commonName: 'kube-apiserver' }, names)
  // As which the API server asks a kubelet, for logs.
  const asClient = authority.issue({ commonName: 'kube-apiserver', organization: 'system:masters' })
  const serviceAccounts = createSigningKey()
  const tokens = Object.fromEntries(
    Object.keys(USERS).map((name) => [name, randomBytes(24).toString('hex')]),
  ) as Credentials['tokens']
  const rows = Object.entries(USERS).map(
    ([name, { user, group }]) => `${tokens[name as User]},${user},${name},"${group}"`,
  )
  await Promise.all([
    write('ca.crt', authority.certificate),
    write('serving.crt', serving.certificate),
    write('serving.key', serving.key),
    write('client.crt', asClient.certificate),
    write('client.key', asClient.key),
    write('service-accounts.key', serviceAccounts.key),
    write('service-accounts.pub', serviceAccounts.publicKey),
    write('tokens.csv', `${rows.join('\n')}\n`),
    ...Object.keys(USERS).map((name) =>
      writeFile(
        kubeconfigOf(dir, name as User),
        kubeconfigText({ server, ca: authority.certificate, token: tokens[name as User] }),
        { mode: 0o600 },
      ),
    ),
  ])
  return { ca: authority.certificate, tokens }
}
