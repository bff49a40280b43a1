/**
 * A real Kubernetes on a machine that has Go, without containers: `node tools/cluster/cluster.ts build|up|down|status`.
 *
 *     build [--node | name…]        etcd, the control plane, kubectl, KWOK and Helm; --node: also kubelet, kube-proxy and CNI plugins
 *     up [--nodes 10] [--realistic] starts it on the loopback and says how the platform runs against it; --realistic: pods take 8–12 s to start; --real: also a real
 *                                   node, which can run sandboxes with opencode
 *     down                          ends exactly what `up` started
 *     status                        what runs
 *
 * State is in `LAP_CLUSTER_DIR` (.lap-cluster), binaries are in `LAP_CACHE` (~/.cache/lap).
 */
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { step } from '../dev/progress.ts'
import { harnessImage, pauseImage } from '../image/images.ts'
import { binariesDir, buildBinaries, buildHelm, CONTROL_PLANE, NODE } from './binaries.ts'
import { REAL_NODE } from './credentials.ts'
import { endCluster, runningIn, startOwnCluster } from './control-plane.ts'
import { endNodeOf, startNode } from './node.ts'
import { FAST, REALISTIC } from './stages.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const dir = path.resolve(process.env['LAP_CLUSTER_DIR'] || path.join(root, '.lap-cluster'))
const say = (text: string): void => console.log(`  ${text}`)

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    nodes: { type: 'string', default: '10' },
    realistic: { type: 'boolean' },
    real: { type: 'boolean' },
    node: { type: 'boolean' },
  },
})
const [command, ...names] = positionals

const buildCluster = (): Promise<void> =>
  step('binaries', () => {
    const wanted = values.node === true ? [...CONTROL_PLANE, ...NODE] : CONTROL_PLANE
    return buildBinaries(names.length > 0 ? names : wanted, say)
  })

const build = async (): Promise<void> => {
  await buildCluster()
  if (names.length === 0) await step('helm', () => buildHelm(say))
}

/** There is no controller of Sandboxes here; with their definition alone they would be made, and never start. */
const PLATFORM = { SANDBOX_DRIVER: 'kubernetes', K8S_SANDBOX_API: 'pod' }
const GIVEN = 'LITELLM_API_BASE=https://… LITELLM_API_KEY=sk-… PREINSTALLED_GITHUB_REPO=https://…'

/** What to type for the platform with its sandboxes here. @param more settings for a node that runs them */
const sayHow = (kubeconfig: string, more: Record<string, string>): void => {
  const settings = Object.entries({ KUBECONFIG: kubeconfig, ...PLATFORM, ...more })
  const shown = settings.map(([name, value]) => `${name}=${/^[\w/.:=-]*$/.test(value) ? value : `'${value}'`}`)
  console.log(
    '\n  Sandboxes are plain Pods here: there is no agent-sandbox. With a gateway and a repository that pods reach:\n',
  )
  console.log(`${shown.join(' ')} ${GIVEN} npm start\n`)
}

const up = async (): Promise<void> => {
  const nodes = Number(values.nodes)
  if (!Number.isInteger(nodes) || nodes < 0) throw new Error(`--nodes ${values.nodes} is not a number of nodes`)
  await buildCluster()
  let kubeconfig = ''
  await step('cluster', async () => {
    const times = values.realistic === true ? REALISTIC : FAST
    const cluster = await startOwnCluster({ dir, nodes, times, say })
    kubeconfig = cluster.kubeconfig.tester
    return `${nodes} fake nodes; export KUBECONFIG=${kubeconfig}`
  })
  const more: Record<string, string> = {}
  if (values.real === true)
    await step('real node', async () => {
      const image = await harnessImage('opencode', say)
      const { address } = await startNode({ clusterDir: dir, pause: await pauseImage(say), images: [image], say })
      more['K8S_HARNESS_IMAGE'] = image.name
      // Pods would come to the fake ones, too.
      if (nodes > 0) more['K8S_NODE_SELECTOR'] = `kubernetes.io/hostname=${REAL_NODE}`
      return `its pods see this machine at ${address}`
    })
  else
    say('Fake nodes run nothing: sandboxes are made, watched and removed, and none becomes ready. --real adds a node')
  sayHow(kubeconfig, more)
}

const down = async (): Promise<void> => {
  const ended = (await endNodeOf(dir)) ? ['the real node'] : []
  ended.push(...(await endCluster(dir)))
  say(ended.length === 0 ? 'Nothing runs' : `Ended ${ended.join(', ')}`)
}

const status = async (): Promise<void> => {
  const running = await runningIn(dir)
  for (const { name, pid } of running) say(`${name.padEnd(20)} process ${pid}`)
  if (running.length === 0) say('Nothing runs')
  else say(`${'kubectl'.padEnd(20)} ${await binariesDir()}/kubectl --kubeconfig ${dir}/admin.kubeconfig`)
}

const commands: Record<string, () => Promise<void>> = { build, up, down, status }
const run = commands[command ?? '']
if (run === undefined) {
  console.error('node tools/cluster/cluster.ts build|up|down|status')
  process.exitCode = 2
} else
  try {
    await run()
    // Connections to the cluster that stays would keep this process.
    process.exit()
  } catch (error) {
    console.error(Error.isError(error) ? error.message : error)
    process.exit(1)
  }
