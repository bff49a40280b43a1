import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { onNpmEnded } from '../tools/dev/npm.ts'
import { type Bench, createBench, type Scenario } from './bench.ts'
import { type Machine, machineFacts, type Results } from './machine.ts'
import type { Servers } from './platform.ts'
import { basesOf, type Figure, missed, table } from './stats.ts'

const options = (all: Scenario[]) => {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true },
      quick: { type: 'boolean', default: false },
      out: { type: 'string' },
    },
  })
  const unknown = values.only?.filter((name) => !all.some((scenario) => scenario.name === name)) ?? []
  if (unknown.length > 0)
    throw new Error(`No scenario ${unknown.join(', ')}. There are: ${all.map(({ name }) => name).join(', ')}`)
  const scenarios = all.filter(({ name }) => values.only?.includes(name) ?? true)
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
  open: () => Promise<Servers>,
  signal: AbortSignal,
): Promise<{ figures: Figure[]; machine: Machine }> => {
  await using servers = await open()
  await using bench = createBench(servers, { quick, say: (text) => console.log(`  ${text}`) })
  signal.throwIfAborted()
  const figures = await Promise.race([runAll(bench, scenarios), interruption(signal)])
  return { figures, machine: await machineFacts(bench) }
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

const main = async (all: Scenario[], open: () => Promise<Servers>): Promise<void> => {
  const given = options(all)
  const interrupted = new AbortController()
  const end = (): void => {
    console.log('Ending; everything is cleaned up …')
    // Whoever asks again does not want to wait: what watches over the processes ends them then.
    for (const name of SIGNALS) process.off(name, end)
    interrupted.abort(new Error('interrupted'))
  }
  for (const name of SIGNALS) process.on(name, end)
  onNpmEnded(() => interrupted.signal.aborted || end())
  const startedAt = new Date().toISOString()
  const { figures, machine } = await measure(given, open, interrupted.signal)
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

/**
 * Runs the scenarios that the command line asks for, prints their table and leaves the samples in a file:
 *
 *   --only <scenario>   only this one; may be given several times
 *   --quick             few samples and small pools: whether it works, not how fast it is
 *   --out <file>        where the samples go; default bench/results/<time>.json
 *
 * @param open starts what is measured
 */
export const runBench = async (all: Scenario[], open: () => Promise<Servers>): Promise<void> => {
  try {
    await main(all, open)
  } catch (error) {
    console.error(error)
    process.exitCode = 1
  }
}
