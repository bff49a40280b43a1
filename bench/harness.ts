/** `npm run bench:harness`: what a warm start saves of each harness, phase by phase, with the cold start of the same run beside it. Its options are those of `runBench`. */
import { CONVERSATIONAL, TERMINALS } from './bench.ts'
import { runBench } from './main.ts'
import { startServers } from './platform.ts'
import { floor } from './scenarios/floor.ts'
import { harnessStart } from './scenarios/harness.ts'
import { terminalStart } from './scenarios/terminal.ts'

await runBench([floor, ...CONVERSATIONAL.map(harnessStart), ...TERMINALS.map(terminalStart)], () => {
  console.log('Starting Postgres, Temporal and a model that costs nothing …')
  return startServers()
})
