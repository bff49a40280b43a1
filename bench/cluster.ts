/**
 * `npm run bench:cluster`: what the platform costs on Kubernetes, on a control plane that is built and started here. Its options are those of `runBench`, and
 *
 *   BENCH_SANDBOX_API=pod   makes plain Pods instead of Sandboxes
 *   BENCH_NODE=real         has one real node with the real image and opencode in it, instead of fake ones
 */
import type { Scenario } from './bench.ts'
import { startClusterServers } from './cluster/platform.ts'
import { startRealNodeServers } from './cluster/real-node.ts'
import { runBench } from './main.ts'
import { burstOf } from './scenarios/burst.ts'
import { coldCreate } from './scenarios/cold-create.ts'
import { floor } from './scenarios/floor.ts'
import { coldOpencode, warmOpencode } from './scenarios/opencode.ts'
import { warmCreate } from './scenarios/warm-create.ts'

/** Each pool begins where the one before it ended. */
const FAKE_NODES: Scenario[] = [floor, coldCreate, warmCreate, burstOf(50), burstOf(300)]
const REAL_NODE: Scenario[] = [floor, coldOpencode, warmOpencode]

const api = process.env['BENCH_SANDBOX_API'] === 'pod' ? 'pod' : 'sandbox'
const isReal = process.env['BENCH_NODE'] === 'real'

await runBench(isReal ? REAL_NODE : FAKE_NODES, () => {
  console.log('Starting a control plane, Postgres and Temporal …')
  return isReal ? startRealNodeServers(api) : startClusterServers(api)
})
