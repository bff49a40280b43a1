import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import os from 'node:os'
import { promisify } from 'node:util'
import { temporalCli } from '../tools/temporal.mjs'
import { type Bench, CONVERSATIONAL, TERMINALS } from './bench.ts'
import type { Figure } from './stats.ts'

const run = promisify(execFile)

/** What figures depend on. No name of a host, no path. */
export type Machine = {
  cores: number
  cpu: string
  memory_gb: number
  kernel: string
  node: string
  postgres: string
  temporal: string
  opencode: string
  /** Packages of the other harnesses, with their versions. */
  harnesses?: Record<string, string>
}

/** The file that a run leaves: everything that was measured. */
export type Results = { started_at: string; quick: boolean; machine: Machine; figures: Figure[] }

const packagesOf = async (harness: string): Promise<Record<string, string>> => {
  const text = await readFile(new URL(`../harness/${harness}/package.json`, import.meta.url), 'utf8')
  return (JSON.parse(text) as { dependencies?: Record<string, string> }).dependencies ?? {}
}

export const machineFacts = async ({ sql }: Pick<Bench, 'sql'>): Promise<Machine> => {
  const [version] = await sql<{ server_version: string }>('show server_version')
  const { stdout } = await run(await temporalCli(), ['--version'])
  const [opencode = {}, ...others] = await Promise.all([...CONVERSATIONAL, ...TERMINALS].map(packagesOf))
  return {
    cores: os.cpus().length,
    cpu: os.cpus()[0]?.model ?? 'unknown',
    memory_gb: Math.round(os.totalmem() / 1024 ** 3),
    kernel: `${os.type()} ${os.release()}`,
    node: process.versions.node,
    postgres: version?.server_version ?? 'unknown',
    temporal: stdout.trim(),
    opencode: opencode['opencode-ai'] ?? 'unknown',
    harnesses: Object.assign({}, ...others),
  }
}
