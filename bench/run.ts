/**
 * `npm run bench`: every figure of docs/benchmarks.md in one run on one machine.
 *
 *   --only <scenario>   only this one; may be given several times
 *   --quick             few samples and small pools: whether it works, not how fast it is
 *   --out <file>        where the samples go; default bench/results/<time>.json
 */
import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { type Bench, createBench, type Scenario } from './bench.ts'
import { type Machine, machineFacts, type Results } from './machine.ts'
import { startServers } from './platform.ts'
import { burstOfCreates } from './scenarios/burst.ts'
import { claimAlone } from './scenarios/claim.ts'
import { fanOut } from './scenarios/fan-out.ts'
import { floor } from './scenarios/floor.ts'
import { message } from './scenarios/message.ts'
import { coldOpencode, warmOpencode } from './scenarios/opencode.ts'
import { refill } from './scenarios/refill.ts'
import { throughput } from './scenarios/throughput.ts'
import { warmCreate, warmCreateLoaded } from './scenarios/warm-create.ts'
import { basesOf, type Figure, missed, table } from './stats.ts'

/** In an order that fills each pool once. */
const SCENARIOS: Scenario[] = [
  floor,
  claimAlone,
  warmCreate,
  refill,
  message,
  fanOut,
  warmCreateLoaded,
  throughput,
  burstOfCreates,
  warmOpencode,
  coldOpencode,
]

const options = () => {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true },
      quick: { type: 'boolean', default: false },
      out: { type: 'string' },
    },
  })
  const unknown = values.only?.filter((name) => !SCENARIOS.some((scenario) => scenario.name === name)) ?? []
  if (unknown.length > 0)
    throw new Error(`No scenario ${unknown.join(', ')}. There are: ${SCENARIOS.map(({ name }) => name).join(', ')}`)
  const scenarios = SCENARIOS.filter(({ name }) => values.only?.includes(name) ?? true)
  const results = fileURLToPath(new URL('results', import.meta.url))
  const time = new Date().toISOString().slice(0, 19).replaceAll(':', '')
  return { scenarios, quick: values.quick, out: path.resolve(values.out ?? path.join(results, `${time}.json`)) }
}

const runAll = async (bench: Bench, scenarios: Scenario[]): Promise<Figure[]> => {
  const figures: Figure[] = []
  for (const { name, about, run } of scenarios) {
    const begin = performance.now()
    console.log(`\n${name}: ${about}`)
    const found = await run(bench)
    figures.push(...found)
    console.log(table(found, basesOf(figures)))
    console.log(`  ${((performance.now() - begin) / 1_000).toFixed(0)} s`)
  }
  return figures
}

/** Rejects when the signal comes: whatever is being measured is given up, and everything is cleaned up. */
const interruption = (signal: AbortSignal): Promise<never> =>
  new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))

const measure = async (
  { scenarios, quick }: ReturnType<typeof options>,
  signal: AbortSignal,
): Promise<{ figures: Figure[]; machine: Machine }> => {
  console.log('Starting Postgres, Temporal and a model that costs nothing …')
  await using servers = await startServers()
  await using bench = createBench(servers, { quick, say: (text) => console.log(`  ${text}`) })
  signal.throwIfAborted()
  const figures = await Promise.race([runAll(bench, scenarios), interruption(signal)])
  return { figures, machine: await machineFacts(bench) }
}

const main = async (): Promise<void> => {
  const given = options()
  const interrupted = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const)
    process.once(name, () => {
      console.log('Ending; everything is cleaned up …')
      interrupted.abort(new Error('interrupted'))
    })
  const startedAt = new Date().toISOString()
  const { figures, machine } = await measure(given, interrupted.signal)
  const rounded = figures.map((figure) => ({
    ...figure,
    samples: figure.samples.map((sample) => Math.round(sample * 100) / 100),
  }))
  const results: Results = { started_at: startedAt, quick: given.quick, machine, figures: rounded }
  await mkdir(path.dirname(given.out), { recursive: true })
  await writeFile(given.out, `${JSON.stringify(results)}\n`)

  const { cores, cpu, memory_gb, kernel } = machine
  console.log(`\n${table(rounded, basesOf(rounded))}\n`)
  console.log(
    `${cores} cores of ${cpu}, ${memory_gb} GB, ${kernel}; node ${machine.node}, Postgres ${machine.postgres}`,
  )
  console.log(`${machine.temporal}; opencode ${machine.opencode}`)
  for (const figure of figures) for (const miss of missed(figure)) console.log(`missed: ${figure.name.trim()}: ${miss}`)
  console.log(`Samples: ${path.relative(process.cwd(), given.out)}`)
}

try {
  await main()
} catch (error) {
  console.error(error)
  process.exitCode = 1
}
