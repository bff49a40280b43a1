import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { errorText } from '../domain/errors.ts'
import type { BindReply, BindRequest, Health, SupervisorConfig, TurnRequest } from '../domain/supervisor-protocol.ts'
import type { TurnReply } from '../domain/turn.ts'
import { createBinding, refused } from './binding.ts'
import { boot } from './boot.ts'
import type { Harness, HarnessContext, HarnessExit, HarnessManifest } from './harness.ts'
import { type Journal, openJournal } from './journal.ts'
import { createLifecycle } from './lifecycle.ts'
import { type Log, createLog } from './log.ts'
import { LOOPBACK_MODEL, startLoopback } from './loopback.ts'
import { withModelName } from './reply.ts'
import { type Conversation, type Turns, createTurns } from './turns.ts'
import { BootError } from './workspace.ts'

/**
 * The one process of a sandbox that the platform talks to.
 *
 *   booting ──► booted (purpose session) ──┐
 *      │   └──► warm   (purpose pool) ─────┴──► bound
 *      └──► failed                   (a harness that dies before bind: failed as well)
 */
export type Supervisor = {
  readonly journal: Journal
  readonly log: Log
  /** Ends in `warm` or `booted`. @throws BootError */
  boot: () => Promise<void>
  health: () => Health
  /** @throws AppError `conflict` for another epoch, or before it has booted; `invalid` for a file outside of the workspace */
  bind: (request: BindRequest) => Promise<BindReply>
  /** @throws AppError `conflict` */
  startTurn: (request: TurnRequest) => void
  interrupt: (turnId: string | undefined) => Promise<void>
  messages: () => Promise<TurnReply[]>
  /** Writes `state.json` with the port on which it listens. */
  listening: (port: number) => void
  stop: () => Promise<void>
}

export type SupervisorOptions = {
  /** `PATH` of set-up command, harness and tools. */
  path: string
  out: (text: string) => void
  /** The sandbox is of no use any more: its harness died before it was bound. */
  onDead: () => void
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

const loadHarness = async (folder: string): Promise<HarnessManifest> => {
  const loaded = (await import(pathToFileURL(path.join(folder, 'manifest.ts')).href)) as { default: HarnessManifest }
  return loaded.default
}

const exitText = ({ code, signal }: HarnessExit): string => `the harness ended: code ${code}, signal ${signal}`

/** Starts a bound session's harness again after it has died; whoever needs it waits for `runs`, and tries once more if that failed. */
const createRestarter = (start: () => Promise<void>, log: Log, onRestarted: () => void) => {
  let count = 0
  let running: Promise<void> = Promise.resolve()
  const once = async (): Promise<void> => {
    try {
      await start()
    } catch (error) {
      log.write(`the harness does not start again: ${errorText(error)}`)
      throw error
    }
    count += 1
    onRestarted()
  }
  const restart = (): Promise<void> => {
    running = once()
    running.catch(() => undefined)
    return running
  }
  return { count: () => count, restart, runs: (): Promise<void> => running.catch(restart) }
}

/** The folders and files of a sandbox. */
const prepareLayout = (dir: string) => {
  const [home, tmp] = [path.join(dir, 'home'), path.join(dir, 'tmp')]
  const bashEnv = path.join(dir, 'session.env')
  for (const folder of [home, tmp]) mkdirSync(folder, { recursive: true })
  writeFileSync(bashEnv, '', { mode: 0o600 })
  return { home, tmp, bashEnv, workspace: path.join(dir, 'workspace'), journal: path.join(dir, 'journal.jsonl') }
}

const createParts = async (config: SupervisorConfig, options: SupervisorOptions) => {
  const files = prepareLayout(config.dir)
  const log = createLog(options.out)
  return {
    identity: { sandbox_id: config.sandbox_id, template_hash: config.template_hash },
    workspace: files.workspace,
    bashEnv: files.bashEnv,
    home: files.home,
    env: environment(config, { PATH: options.path, HOME: files.home, TMPDIR: files.tmp, BASH_ENV: files.bashEnv }),
    log,
    journal: openJournal(files.journal),
    lifecycle: createLifecycle(config.dir),
    loopback: await startLoopback(log.write),
  }
}

type Parts = Awaited<ReturnType<typeof createParts>>

const createHarness = async (
  config: SupervisorConfig,
  { workspace, home, env, loopback, log }: Parts,
  listeners: Pick<HarnessContext, 'onEvent' | 'onExit'>,
): Promise<Harness> => {
  const manifest = await loadHarness(config.harness.dir)
  const gateway = { url: loopback.url, key: loopback.key, model: LOOPBACK_MODEL }
  return manifest.create({ dir: config.harness.dir, workspace, home, env, gateway, log: log.write, ...listeners })
}

export const createSupervisor = async (config: SupervisorConfig, options: SupervisorOptions): Promise<Supervisor> => {
  const parts = await createParts(config, options)
  const { journal, lifecycle, log } = parts
  let bound: { turns: Turns; conversation: Conversation } | null = null
  let spare: string | null = null
  let stopping = false

  const onExit = (exit: HarnessExit): void => {
    // While booting, `start` or the warm-up turn fails by itself.
    if (stopping || lifecycle.read().state === 'booting') return
    log.write(exitText(exit))
    if (bound === null) {
      lifecycle.fail(new BootError('harness_exited', `${exitText(exit)}\n${exit.tail.join('\n')}`))
      return options.onDead()
    }
    journal.append({ type: 'harness_exited', turn_id: bound.turns.running(), ...exit })
    // After the dead turn has been closed, so that the journal tells it in order.
    setImmediate(() => void restarter.restart().catch(() => undefined))
  }
  const harness = await createHarness(config, parts, { onEvent: (event) => bound?.turns.hear(event), onExit })
  const restarter = createRestarter(
    () => harness.start(),
    log,
    () => void journal.append({ type: 'harness_restarted' }),
  )
  const binding = createBinding({
    ...parts,
    harness,
    spare: () => spare,
    onBound({ prompt, model }, id) {
      const conversation = { id, system: prompt, model }
      const killHarness = async (): Promise<void> => {
        await harness.stop()
        onExit({ code: null, signal: 'SIGKILL', tail: [] })
      }
      const deps = { ...parts, harness, harnessRuns: restarter.runs, killHarness, log: log.write }
      bound = { conversation, turns: createTurns(conversation, deps) }
    },
  })
  const needBound = (): NonNullable<typeof bound> => {
    if (bound === null) throw refused('not_bound', 'the sandbox is not bound to a session')
    return bound
  }

  return {
    journal,
    log,
    async boot() {
      spare = await boot({ ...parts, config, harness })
    },
    health: () => ({
      ...parts.identity,
      ...lifecycle.read(),
      epoch: binding.epoch(),
      harness: { id: config.harness.id, running: !stopping, pid: harness.pid(), restarts: restarter.count() },
      running_turn: bound?.turns.running() ?? null,
      journal_seq: journal.lastSeq(),
    }),
    bind: async (request) => binding.bind(request),
    startTurn: (request) => needBound().turns.start(request),
    interrupt: (turnId) => needBound().turns.interrupt(turnId),
    async messages() {
      const { conversation } = needBound()
      const thread = await harness.messages(conversation.id)
      return thread.map(({ info, parts }) => ({ info: withModelName(info, conversation.model), parts }))
    },
    listening: lifecycle.listening,
    async stop() {
      stopping = true
      await Promise.all([harness.stop(), parts.loopback.close()])
      journal.close()
    },
  }
}
