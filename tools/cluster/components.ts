import path from 'node:path'
import { kubeconfigOf } from './credentials.ts'

export type Ports = {
  etcd: number
  etcdPeer: number
  apiServer: number
  controllerManager: number
  scheduler: number
  kwok: number
}

const SERVICE_CIDR = '10.96.0.0/16'
/** The first address of the services is the API server's own. */
export const API_SERVICE_ADDRESS = '10.96.0.1'
/**
 * Pods of fake nodes get addresses of the loopback: everything under 127/8 is this machine, so that one process can listen for all of them and is reached under the
 * address that the pod's status says.
 */
const POD_CIDR = '127.64.0.1/16'
/** Leases of nodes are renewed every quarter of this. */
export const LEASE_S = 40
/** A node is given up this long after its lease. */
const NODE_GRACE_S = 10
/** The default client limits of the controllers (20 and 50 requests a second) would be what is measured. */
const FAST_CLIENT = ['--kube-api-qps=500', '--kube-api-burst=1000']

type Component = { binary: string; args: string[] }

const pkiIn =
  (dir: string) =>
  (name: string): string =>
    path.join(dir, 'pki', name)

const serversOf = (dir: string, ports: Ports) => {
  const pki = pkiIn(dir)
  const etcdUrl = `http://127.0.0.1:${ports.etcd}`
  const peerUrl = `http://127.0.0.1:${ports.etcdPeer}`
  return {
    etcd: {
      binary: 'etcd',
      args: [
        `--data-dir=${path.join(dir, 'etcd')}`,
        `--listen-client-urls=${etcdUrl}`,
        `--advertise-client-urls=${etcdUrl}`,
        `--listen-peer-urls=${peerUrl}`,
        `--initial-advertise-peer-urls=${peerUrl}`,
        `--initial-cluster=default=${peerUrl}`,
        // What it holds is thrown away with the cluster.
        '--unsafe-no-fsync',
        '--log-level=warn',
      ],
    },
    apiServer: {
      binary: 'kube-apiserver',
      args: [
        `--etcd-servers=${etcdUrl}`,
        '--bind-address=127.0.0.1',
        '--advertise-address=127.0.0.1',
        `--secure-port=${ports.apiServer}`,
        // The endpoints of the service `kubernetes` may not be loopback addresses.
        '--endpoint-reconciler-type=none',
        `--service-cluster-ip-range=${SERVICE_CIDR}`,
        '--allow-privileged',
        '--authorization-mode=Node,RBAC',
        `--tls-cert-file=${pki('serving.crt')}`,
        `--tls-private-key-file=${pki('serving.key')}`,
        `--client-ca-file=${pki('ca.crt')}`,
        `--token-auth-file=${pki('tokens.csv')}`,
        `--kubelet-client-certificate=${pki('client.crt')}`,
        `--kubelet-client-key=${pki('client.key')}`,
        '--kubelet-preferred-address-types=InternalIP',
        '--service-account-issuer=https://kubernetes.default.svc',
        `--service-account-key-file=${pki('service-accounts.pub')}`,
        `--service-account-signing-key-file=${pki('service-accounts.key')}`,
      ],
    },
  } satisfies Record<string, Component>
}

/** Value of the annotation of nodes that KWOK plays the kubelet of: not of a real one, which answers for itself. */
export const FAKE = 'fake'

/** Label and taint of fake nodes in a cluster that others use, too. */
export const FAKE_RUN = 'lap.invalid/fake'

export type KwokOptions = {
  kubeconfig: string
  /** File with stages. */
  config: string
  /** Value of the annotation of its nodes. */
  managed: string
  port: number
  leaseS: number
  /** Files of its certificate: the API server asks kubelets for logs, by TLS only. */
  certificate: string
  key: string
}

export const kwokArgs = (options: KwokOptions): string[] => [
  `--kubeconfig=${options.kubeconfig}`,
  '--manage-all-nodes=false',
  `--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=${options.managed}`,
  `--config=${options.config}`,
  `--cidr=${POD_CIDR}`,
  '--node-ip=127.0.0.1',
  `--node-lease-duration-seconds=${options.leaseS}`,
  `--server-address=127.0.0.1:${options.port}`,
  `--node-port=${options.port}`,
  `--tls-cert-file=${options.certificate}`,
  `--tls-private-key-file=${options.key}`,
]

const clientsOf = (dir: string, ports: Ports, stages: string, leaseS: number) => {
  const pki = pkiIn(dir)
  return {
    controllerManager: {
      binary: 'kube-controller-manager',
      args: [
        `--kubeconfig=${kubeconfigOf(dir, 'kube-controller-manager')}`,
        '--bind-address=127.0.0.1',
        `--secure-port=${ports.controllerManager}`,
        '--leader-elect=false',
        `--service-account-private-key-file=${pki('service-accounts.key')}`,
        `--root-ca-file=${pki('ca.crt')}`,
        '--concurrent-gc-syncs=20',
        `--node-monitor-grace-period=${leaseS + NODE_GRACE_S}s`,
        '--node-monitor-period=1s',
        ...FAST_CLIENT,
      ],
    },
    scheduler: {
      binary: 'kube-scheduler',
      args: [
        `--kubeconfig=${kubeconfigOf(dir, 'kube-scheduler')}`,
        '--bind-address=127.0.0.1',
        `--secure-port=${ports.scheduler}`,
        '--leader-elect=false',
        // Says which pod went where.
        '--v=2',
        ...FAST_CLIENT,
      ],
    },
    kwok: {
      binary: 'kwok',
      args: kwokArgs({
        kubeconfig: kubeconfigOf(dir, 'kwok'),
        config: stages,
        managed: FAKE,
        port: ports.kwok,
        leaseS,
        certificate: pki('serving.crt'),
        key: pki('serving.key'),
      }),
    },
  } satisfies Record<string, Component>
}

/** @param options `leaseS`: how long a node is believed without a word of it */
export const componentsOf = (dir: string, ports: Ports, options: { stages: string; leaseS: number }) => ({
  ...serversOf(dir, ports),
  ...clientsOf(dir, ports, options.stages, options.leaseS),
})

export type ComponentName = keyof ReturnType<typeof componentsOf>

/** @param run in a cluster that is not ours alone: keeps its pods away from this node, and ours on it (`lap.invalid/fake=<run>`) */
export const fakeNode = (index: number, run?: string): object => {
  const name = run === undefined ? `fake-${index}` : `fake-${run}-${index}`
  const size = { cpu: '64', memory: '256Gi', pods: '500', 'ephemeral-storage': '1Ti' }
  const labels = { 'kubernetes.io/os': 'linux', 'kubernetes.io/arch': 'amd64', 'kubernetes.io/hostname': name }
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      name,
      annotations: { 'kwok.x-k8s.io/node': run ?? FAKE },
      labels: { ...labels, ...(run === undefined ? {} : { [FAKE_RUN]: run }) },
    },
    spec: run === undefined ? {} : { taints: [{ key: FAKE_RUN, value: run, effect: 'NoSchedule' }] },
    status: { capacity: size, allocatable: size },
  }
}
