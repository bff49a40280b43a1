import path from 'node:path'
import { kubeconfigOf, REAL_NODE } from './credentials.ts'

/** One node on this machine, with a bridge of its own. */
export type NodePlan = {
  /** Its state. */
  dir: string
  /** Images, kept from one node to the next. */
  imagesDir: string
  /** Where the control plane keeps its keys. */
  clusterDir: string
  /** Where kubelet, kube-proxy and the CNI plugins are. */
  binaries: string
  bridge: string
  /** Of the bridge: what the pods see of this machine. It is also the node's address. */
  address: string
  /** Of the pods, with the bridge's address in it. */
  subnet: string
  pauseImage: string
  kubeletPort: number
  proxyHealthPort: number
  proxyMetricsPort: number
}

export const socketOf = (dir: string): string => path.join(dir, 'containerd.sock')

/** containerd's: TOML, whose strings are those of JSON. */
export const containerdConfig = ({ dir, imagesDir, binaries, pauseImage }: NodePlan): string => {
  const text = (...parts: string[]): string => JSON.stringify(path.join(...parts))
  return `version = 2
root = ${text(imagesDir)}
state = ${text(dir, 'state')}
oom_score = 0
[grpc]
  address = ${JSON.stringify(socketOf(dir))}
[plugins."io.containerd.internal.v1.opt"]
  path = ${text(dir, 'opt')}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = ${JSON.stringify(pauseImage)}
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = ${text(dir, 'runc')}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = ${JSON.stringify(binaries)}
    conf_dir = ${text(dir, 'cni')}
    max_conf_num = 1
`
}

/** Pods reach this machine and each other. Nothing is masqueraded, so no further. */
export const cniConfig = ({ dir, bridge, subnet }: NodePlan): object => ({
  cniVersion: '0.4.0',
  name: 'lap',
  plugins: [
    {
      type: 'bridge',
      bridge,
      isGateway: true,
      ipMasq: false,
      hairpinMode: true,
      ipam: {
        type: 'host-local',
        dataDir: path.join(dir, 'addresses'),
        ranges: [[{ subnet }]],
        routes: [{ dst: '0.0.0.0/0' }],
      },
    },
  ],
})

/** For a machine that does other things, too: it evicts nothing, tunes nothing and takes control groups of either version as they are. */
export const kubeletConfig = ({ dir, clusterDir, address, kubeletPort }: NodePlan): object => ({
  apiVersion: 'kubelet.config.k8s.io/v1beta1',
  kind: 'KubeletConfiguration',
  address,
  port: kubeletPort,
  healthzPort: 0,
  authentication: {
    anonymous: { enabled: false },
    webhook: { enabled: false },
    x509: { clientCAFile: path.join(clusterDir, 'pki', 'ca.crt') },
  },
  // Whoever has a certificate of the cluster's authority is the API server.
  authorization: { mode: 'AlwaysAllow' },
  containerRuntimeEndpoint: `unix://${socketOf(dir)}`,
  cgroupDriver: 'cgroupfs',
  cgroupsPerQOS: false,
  enforceNodeAllocatable: [],
  failCgroupV1: false,
  failSwapOn: false,
  localStorageCapacityIsolation: false,
  makeIPTablesUtilChains: false,
  imageGCHighThresholdPercent: 100,
  imageGCLowThresholdPercent: 99,
  evictionHard: {
    'memory.available': '0%',
    'nodefs.available': '0%',
    'imagefs.available': '0%',
    'nodefs.inodesFree': '0%',
  },
  podLogsDir: path.join(dir, 'pod-logs'),
  volumePluginDir: path.join(dir, 'volume-plugins'),
  resolvConf: '',
  maxPods: 200,
  serializeImagePulls: false,
  kubeAPIQPS: 200,
  kubeAPIBurst: 400,
  oomScoreAdj: 0,
  featureGates: {
    KubeletInUserNamespace: true,
    // Without control groups for pods it dereferences nil in a pod that goes away amid its start, and ends (kubernetes/kubernetes#137993).
    InPlacePodVerticalScaling: false,
  },
})

type Daemon = { command: string; args: string[] }

export const daemonsOf = (
  plan: NodePlan,
  containerd: string,
): Record<'containerd' | 'kubelet' | 'kubeProxy', Daemon> => {
  const { dir, clusterDir, binaries, address } = plan
  return {
    containerd: { command: containerd, args: ['--config', path.join(dir, 'containerd.toml'), '--log-level', 'warn'] },
    kubelet: {
      command: path.join(binaries, 'kubelet'),
      args: [
        `--config=${path.join(dir, 'kubelet.json')}`,
        `--kubeconfig=${kubeconfigOf(clusterDir, 'kubelet')}`,
        `--root-dir=${path.join(dir, 'kubelet')}`,
        `--cert-dir=${path.join(dir, 'kubelet-pki')}`,
        `--hostname-override=${REAL_NODE}`,
        `--node-ip=${address}`,
      ],
    },
    kubeProxy: {
      command: path.join(binaries, 'kube-proxy'),
      args: [
        `--kubeconfig=${kubeconfigOf(clusterDir, 'kube-proxy')}`,
        `--hostname-override=${REAL_NODE}`,
        '--proxy-mode=iptables',
        `--cluster-cidr=${plan.subnet}`,
        `--bind-address=${address}`,
        `--nodeport-addresses=${address}/32`,
        `--healthz-bind-address=127.0.0.1:${plan.proxyHealthPort}`,
        `--metrics-bind-address=127.0.0.1:${plan.proxyMetricsPort}`,
        '--iptables-min-sync-period=0s',
        // The machine's limits stay what they are.
        '--conntrack-max-per-core=0',
        '--conntrack-tcp-timeout-established=0',
        '--conntrack-tcp-timeout-close-wait=0',
      ],
    },
  }
}
