/**
 * Records the histories that test/replay replays: `node tools/record-histories.ts [name …]`. Real sessions and pools run through their paths on a real
 * Temporal server, Postgres, API, worker and sandboxes with the light harness. What identifies the machine is taken out. Takes two minutes.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { Client, Connection } from '@temporalio/client'
import { historyToJSON } from '@temporalio/common/lib/proto-utils.js'
import { startStack } from '../test/faults/stack.ts'
import { scenarios } from './histories/scenarios.ts'
import { scrubbed } from './histories/scrub.ts'
import { createWorld } from './histories/world.ts'

const folder = fileURLToPath(new URL('../test/histories', import.meta.url))
const wanted = process.argv.slice(2)

/** One event a line: a change of one is a change of one line. */
const fileOf = (history: { events: unknown[] }): string =>
  `{"events":[\n${history.events.map((event) => JSON.stringify(event)).join(',\n')}\n]}\n`

await using stack = await startStack({
  env: {
    WARM_POOL_SIZE: '2',
    WARM_POOL_MAX_PROVISIONING: '1',
    WARM_POOL_TTL_MINUTES: '1',
    WEBHOOK_ALLOW_PRIVATE_TARGETS: 'true',
  },
  // A long history is one of 4,096 entries; here it is one of 150, so that the recording is short.
  temporalSettings: { 'limit.historyCount.suggestContinueAsNew': '150' },
})
await using connections = new AsyncDisposableStack()
const connection = await Connection.connect({ address: stack.temporalAddress })
connections.defer(() => connection.close())
const client = new Client({ connection, namespace: 'lap' })
const world = createWorld(stack, client)
await mkdir(folder, { recursive: true })

for (const [name, run] of Object.entries(scenarios)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue
  const { workflowId, runId } = await run(world)
  const history = await client.workflow.getHandle(workflowId, runId).fetchHistory()
  const events = scrubbed(JSON.parse(historyToJSON(history)), stack.dir)
  const text = fileOf(events as { events: unknown[] })
  await writeFile(path.join(folder, `${name}.json`), text)
  console.log(`${name}: ${history.events?.length ?? 0} events, ${Math.round(text.length / 1024)} kB`)
}
