import { randomUUID } from 'node:crypto'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import type { SupervisorConfig } from '../domain/supervisor-protocol.ts'
import type { Harness, HarnessContext, HarnessManifest } from './harness.ts'
import { openJournal } from './journal.ts'
import { endLeftovers } from './leftovers.ts'
import { createLifecycle } from './lifecycle.ts'
import { type Log, createLog } from './log.ts'
import { LOOPBACK_MODEL, startLoopback } from './loopback.ts'
import { createMcpRelay } from './mcp-relay.ts'

/** The folders and files of a sandbox. */
const prepareLayout = (dir: string) => {
  const [home, tmp] = [path.join(dir, 'home'), path.join(dir, 'tmp')]
  const bashEnv = path.join(dir, 'session.env')
  for (const folder of [home, tmp]) mkdirSync(folder, { recursive: true })
  writeFileSync(bashEnv, '', { mode: 0o600 })
  const at = (name: string): string => path.join(dir, name)
  // Of an earlier supervisor nobody fetches one any more.
  rmSync(at('checkpoints'), { recursive: true, force: true })
  return {
    home,
    tmp,
    bashEnv,
    workspace: at('workspace'),
    journal: at('journal.jsonl'),
    checkpoints: at('checkpoints'),
  }
}

/** Clean but for what tools need: nothing of the machine's own environment reaches a harness. */
const environment = (config: SupervisorConfig, given: Record<string, string>): Record<string, string> => ({
  LANG: 'C.UTF-8',
  SHELL: '/bin/bash',
  TERM: 'dumb',
  ...config.env,
  ...given,
  LAP_SANDBOX_ID: config.sandbox_id,
})

/** Marks by which processes are found again: those of the sandbox, and among them those of the harness. */
const createMarks = () => {
  const own = randomUUID()
  return {
    sandbox: { LAP_SUPERVISOR: own },
    harness: { LAP_HARNESS: own },
    endHarness: (): Promise<void> => endLeftovers(`LAP_HARNESS=${own}`),
    endAll: (): Promise<void> => endLeftovers(`LAP_SUPERVISOR=${own}`),
  }
}

export type Parts = Awaited<ReturnType<typeof createParts>>

/** What a supervisor is put together from, before there is a harness. @param searchPath `PATH` of set-up command, harness and tools */
export const createParts = async (config: SupervisorConfig, searchPath: string, out: (text: string) => void) => {
  const { home, tmp, bashEnv, workspace, journal, checkpoints } = prepareLayout(config.dir)
  const log: Log = createLog(out)
  const marks = createMarks()
  const given = { PATH: searchPath, HOME: home, TMPDIR: tmp, BASH_ENV: bashEnv, ...marks.sandbox }
  return {
    workspace,
    checkpoints,
    bashEnv,
    home,
    env: environment(config, given),
    log,
    marks,
    journal: openJournal(journal),
    lifecycle: createLifecycle(config.dir),
    loopback: await startLoopback(log.write),
    mcpRelay: createMcpRelay(log.write),
  }
}

export const createHarness = async (
  { id, dir }: SupervisorConfig['harness'],
  { workspace, home, env, marks, loopback, log }: Parts,
  listeners: Pick<HarnessContext, 'onEvent' | 'onPermission' | 'onExit'>,
): Promise<Harness> => {
  const loaded = (await import(pathToFileURL(path.join(dir, 'manifest.ts')).href)) as { default: HarnessManifest }
  const manifest = loaded.default
  if (manifest.id !== id) throw new Error(`the harness in ${dir} is ${manifest.id}, not ${id}`)
  const context: HarnessContext = {
    dir,
    workspace,
    home,
    env: { ...env, ...marks.harness },
    gateway: { url: loopback.url, key: loopback.key, model: LOOPBACK_MODEL },
    isWarmedUp: loopback.warmedUp,
    log: log.write,
    ...listeners,
  }
  if ('create' in manifest) return manifest.create(context)
  // Loaded where they are used: their libraries take a fifth of a second and some memory.
  if ('terminal' in manifest) {
    const { createTerminalHarness } = await import('./terminal/harness.ts')
    return createTerminalHarness({ program: manifest.terminal, name: manifest.name, context })
  }
  const { createAcpHarness } = await import('./acp/driver.ts')
  return createAcpHarness({ agent: manifest.acp(context), name: manifest.name, context })
}
