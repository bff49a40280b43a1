/**
 * `npm run bench:cluster`: what the platform costs on Kubernetes, on a control plane that is built and started here. Its options are those of `runBench`, and
 * BENCH_SANDBOX_API=pod makes plain Pods instead of Sandboxes.
 */
import type { Scenario } from './bench.ts'
import { startClusterServers } from './cluster/platform.ts'
import { runBench } from './main.ts'
import { burstOf } from './scenarios/burst.ts'
import { coldCreate } from './scenarios/cold-create.ts'
import { floor } from './scenarios/floor.ts'
import { warmCreate } from './scenarios/warm-create.ts'

/** Each pool begins where the one before it ended. */
const SCENARIOS: Scenario[] = [floor, coldCreate, warmCreate, burstOf(50), burstOf(300)]

await runBench(SCENARIOS, () => {
  console.log('Starting a control plane, Postgres and Temporal …')
  return startClusterServers(process.env['BENCH_SANDBOX_API'] === 'pod' ? 'pod' : 'sandbox')
})
