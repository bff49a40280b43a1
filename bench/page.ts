import { readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { Results } from './machine.ts'
import { basesOf, table } from './stats.ts'

/** Runs that are kept, as `results/<name>.json`, and shown in docs/benchmarks.md. `node bench/page.ts` puts them there. */
export const KEPT = ['reference', 'cluster', 'real-node', 'harness'] as const

const PAGE = fileURLToPath(new URL('../docs/benchmarks.md', import.meta.url))
const END = '<!-- end of run -->'

export const readPage = (): Promise<string> => readFile(PAGE, 'utf8')

export const readResults = async (name: string): Promise<Results> =>
  JSON.parse(await readFile(new URL(`results/${name}.json`, import.meta.url), 'utf8')) as Results

/** When and with what it was measured, and its table. */
export const sectionOf = ({ started_at, machine, figures }: Results): string => {
  const { cores, cpu, memory_gb, kernel, node, postgres, temporal, opencode } = machine
  const day = started_at.slice(0, 10)
  return `Measured on ${day} with ${cores} cores (${cpu}), ${memory_gb} GB, ${kernel}; Node ${node}, Postgres ${postgres}, ${temporal}, opencode ${opencode}.

\`\`\`
${table(figures, basesOf(figures))}
\`\`\``
}

/** @throws Error when the page has no place for one of them */
export const withSections = (page: string, sections: Record<string, string>): string => {
  let text = page
  for (const [name, section] of Object.entries(sections)) {
    const mark = `<!-- run: ${name} -->`
    const from = text.indexOf(mark)
    const to = text.indexOf(END, from)
    if (from < 0 || to < 0) throw new Error(`The page has no ${mark} … ${END}`)
    text = `${text.slice(0, from)}${mark}\n${section}\n${text.slice(to)}`
  }
  return text
}

if (import.meta.main) {
  const sections: Record<string, string> = {}
  for (const name of KEPT) sections[name] = sectionOf(await readResults(name))
  await writeFile(PAGE, withSections(await readPage(), sections))
}
