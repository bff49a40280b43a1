/**
 * Records what tests of streams replay: `node tools/record-turn.ts`, the journal of two turns of the real opencode with text, thoughts, tools and files, one
 * entry a line, in test/recorded/opencode.jsonl. What identifies the machine is taken out.
 */
import { hostname } from 'node:os'
import { mkdir, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { createSupervisorClient } from '../sandbox/supervisor-client.ts'
import { startScriptedModel } from '../test/scripted-model.ts'
import { bindRequest, makeRepository, MASTER_KEY, readJournal, startSupervisor } from '../test/supervisor.ts'

const TURNS = {
  'recorded-turn-1': String.raw`say I look around first.
run ls; sleep 0.3; cat README.md
think What is there is not much.
write notes.md first line\nsecond line
stream 40 10
run for i in 1 2 3; do echo "line $i"; sleep 0.2; done; exit 3
say That was all.`,
  'recorded-turn-2': `stream 25 20
run wc -l notes.md
say Two lines.`,
}

const file = fileURLToPath(new URL('../test/recorded/opencode.jsonl', import.meta.url))

await using client = createSupervisorClient({ masterKey: MASTER_KEY })
await using model = await startScriptedModel()
await using sandbox = startSupervisor({ harness: 'opencode', repo_url: makeRepository() })
await sandbox.until('warm')
await client.bind(sandbox.target, bindRequest(model))
using journal = readJournal(client, sandbox.target)
for (const [turn_id, text] of Object.entries(TURNS)) {
  await client.startTurn(sandbox.target, { turn_id, parts: [{ type: 'text', text }] })
  const { status, error } = await journal.finished(turn_id)
  console.log(`${turn_id}: ${status} ${error?.message ?? ''}`)
}
const lines = journal.entries.map((entry) =>
  JSON.stringify(entry).replaceAll(sandbox.dir, '/sandbox').replaceAll(hostname(), 'host'),
)
await mkdir(fileURLToPath(new URL('../test/recorded', import.meta.url)), { recursive: true })
await writeFile(file, `${lines.join('\n')}\n`)
console.log(`${lines.length} entries, ${Math.round(lines.join('\n').length / 1024)} kB`)
