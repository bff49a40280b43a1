/** `npm run bench`: every figure of docs/benchmarks.md in one run on one machine, with sandboxes of this machine. Its options are those of `runBench`. */
import type { Scenario } from './bench.ts'
import { runBench } from './main.ts'
import { startServers } from './platform.ts'
import { burstOf } from './scenarios/burst.ts'
import { claimAlone } from './scenarios/claim.ts'
import { fanOut } from './scenarios/fan-out.ts'
import { floor } from './scenarios/floor.ts'
import { interrupting } from './scenarios/interrupt.ts'
import { message } from './scenarios/message.ts'
import { coldOpencode, warmOpencode } from './scenarios/opencode.ts'
import { refill } from './scenarios/refill.ts'
import { throughput } from './scenarios/throughput.ts'
import { warmCreate, warmCreateLoaded } from './scenarios/warm-create.ts'

/** In an order that fills each pool once. */
const SCENARIOS: Scenario[] = [
  floor,
  claimAlone,
  warmCreate,
  refill,
  message,
  interrupting,
  fanOut,
  warmCreateLoaded,
  throughput,
  burstOf(100),
  warmOpencode,
  coldOpencode,
]

await runBench(SCENARIOS, () => {
  console.log('Starting Postgres, Temporal and a model that costs nothing …')
  return startServers()
})
