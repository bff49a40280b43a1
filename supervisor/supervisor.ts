import { AppError, errorText } from '../domain/errors.ts'
import { ALLOW_ALL, type PermissionDecision, type PermissionPolicy } from '../domain/permission.ts'
import type { BindReply, BindRequest, Health, SupervisorConfig, TurnRequest } from '../domain/supervisor-protocol.ts'
import type { TurnReply } from '../domain/turn.ts'
import { createBinding } from './binding.ts'

import { boot } from './boot.ts'
import type { Captures } from './checkpoint/captures.ts'
import { createCheckpoints } from './checkpoint/checkpoints.ts'
import type { Restored, Restores } from './checkpoint/restores.ts'
import type { Harness, HarnessExit } from './harness.ts'
import { createTelling, toTell } from './history.ts'
import type { Journal } from './journal.ts'
import type { Log } from './log.ts'
import { type Parts, createHarness, createParts } from './parts.ts'
import { refused } from './refused.ts'
import { withModelName } from './reply.ts'
import { type Permissions, createPermissions } from './permissions.ts'
import { createRestarter } from './restarter.ts'
import type { Terminal } from './terminal/terminal.ts'
import { type Conversation, type Turns, closeLostTurns, createTurns } from './turns.ts'
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
  /** Ends in `warm` or `booted`. @param rehearse goes the way of the calls that will come @throws BootError */
  boot: (rehearse: () => Promise<void>) => Promise<void>
  health: () => Health
  /** @throws AppError `conflict` for another epoch, or before it has booted; `invalid` for a file outside of the workspace */
  bind: (request: BindRequest) => Promise<BindReply>
  /** Resolves when it has begun, which may wait for a checkpoint. @throws AppError `conflict` */
  startTurn: (request: TurnRequest) => Promise<void>
  capture: Captures['capture']
  restore: Restores['restore']
  interrupt: (turnId: string | undefined) => void
  /** Lets no call of a model through, for that reason; null: it does again. */
  refuseModel: (reason: string | null) => void
  /** Answers a question of the harness. @throws AppError `not_found`, `conflict` */
  replyPermission: (id: string, decision: PermissionDecision) => Promise<void>
  messages: () => Promise<TurnReply[]>
  /** What people type into. @throws AppError `conflict` before it is bound; `not_found` for a harness with conversations */
  terminal: () => Terminal
  /** Told of each change of state and phase, after it. @returns ends that */
  onChange: (listener: () => void) => () => void
  /** Writes `state.json` with the port on which it listens. */
  listening: (port: number) => void
  /** Ends the harness and every process that came from it. */
  stop: () => Promise<void>
}

export type SupervisorOptions = {
  /** `PATH` of set-up command, harness and tools. */
  path: string
  out: (text: string) => void
  /** The sandbox is of no use any more: its harness died before it was bound. */
  onDead: () => void
}

const exitText = ({ code, signal }: HarnessExit): string => `the harness ended: code ${code}, signal ${signal}`

type Bound = { turns: Turns; permissions: Permissions; conversation: Conversation }

/** The harness with everything that holds it: what it says goes to the bound session, and when it dies it is started again. */
const createHeldHarness = async (config: SupervisorConfig, parts: Parts, onDead: () => void) => {
  const { journal, lifecycle, log, marks } = parts
  let bound: Bound | null = null
  let stopping = false

  const onExit = (exit: HarnessExit): void => {
    // While booting, `start` or the warm-up turn fails by itself.
    if (stopping || lifecycle.read().state === 'booting') return
    log.write(exitText(exit))
    if (bound === null) {
      lifecycle.fail(new BootError('harness_exited', `${exitText(exit)}\n${exit.tail.join('\n')}`))
      return onDead()
    }
    journal.append({ type: 'harness_exited', turn_id: bound.turns.running(), ...exit })
    restarter.died()
  }
  const harness = await createHarness(config.harness, parts, {
    onEvent: (event) => bound?.turns.hear(event),
    // A conversation of nobody may do what it likes: it does nothing.
    onPermission: (_conversation, request) =>
      bound === null ? void harness.reply(request.id, 'allow') : bound.permissions.ask(request),
    onExit,
  })
  const restarter = createRestarter({
    async start() {
      await marks.endHarness()
      await harness.start()
    },
    onRestarted: () => void journal.append({ type: 'harness_restarted' }),
    log: log.write,
  })
  const killHarness = async (): Promise<void> => {
    await harness.stop()
    onExit({ code: null, signal: 'SIGKILL', tail: [] })
  }
  const needBound = (): Bound => {
    if (bound === null) throw refused('not_bound', 'the sandbox is not bound to a session')
    return bound
  }
  return {
    harness,
    bound: () => bound,
    needBound,
    session() {
      const { conversation, turns } = needBound()
      return { conversation: conversation.id, runningTurn: turns.running() }
    },
    give(conversation: Conversation, policy: PermissionPolicy): void {
      const running = (): string | null => bound?.turns.running() ?? null
      const permissions = createPermissions({ journal, harness, policy, running, log: log.write })
      const deps = { ...parts, harness, harnessRuns: restarter.needed, killHarness, log: log.write }
      const turns = createTurns(conversation, { ...deps, endQuestions: permissions.endTurn })
      bound = { conversation, permissions, turns }
    },
    health: (): Health['harness'] => ({
      id: config.harness.id,
      running: !stopping && lifecycle.read().state !== 'failed' && restarter.isUp(),
      pid: harness.pid(),
      restarts: restarter.count(),
    }),
    async stop(): Promise<void> {
      stopping = true
      await harness.stop()
      await marks.endAll()
    },
  }
}

const threadOf = async (harness: Harness, { id, model, history }: Conversation): Promise<TurnReply[]> =>
  (await harness.messages(id))
    .filter(({ info }) => !history.holds(String(info['id'])))
    .map(({ info, parts }) => ({ info: withModelName(info, model), parts }))

const terminalOf = (id: string, { terminal }: Harness, needBound: () => Bound): Terminal => {
  needBound()
  if (terminal !== undefined) return terminal
  throw new AppError('not_found', `the harness ${id} is no terminal`, { cause: { code: 'no_terminal' } })
}

const tellingOf = (
  { history, checkpoint }: BindRequest,
  restored: Restored | null,
  workspace: string,
): string | null => {
  if (restored?.conversation == null) return toTell.whole(history)
  const moved = { from: restored.workspace, to: workspace }
  return toTell.since(checkpoint?.since ?? [], moved.from === moved.to ? null : moved)
}

/** @throws BootError when the harness cannot be loaded, after it has entered `failed`; Error for a directory that cannot be written */
export const createSupervisor = async (config: SupervisorConfig, options: SupervisorOptions): Promise<Supervisor> => {
  const parts = await createParts(config, options.path, options.out)
  const { journal, lifecycle, log, loopback } = parts
  closeLostTurns(journal)
  const held = await createHeldHarness(config, parts, options.onDead).catch((error: unknown) => {
    const failure = new BootError('harness_exited', `the harness cannot be loaded: ${errorText(error)}`)
    lifecycle.fail(failure)
    throw failure
  })
  const { harness, needBound } = held
  let spare: string | null = null
  let base: string | null = null
  const { captures, restores } = createCheckpoints({
    config,
    parts,
    harness,
    clone: { base: () => base, setBase: (commit) => void (base = commit) },
    session: held.session,
    epoch: () => binding.epoch(),
  })
  const binding = createBinding({
    ...parts,
    harness,
    spare: () => spare,
    restores,
    onBound(request, id, restored) {
      const { model, permissions = ALLOW_ALL } = request
      held.give({ id, model, history: createTelling(tellingOf(request, restored, parts.workspace)) }, permissions)
    },
  })

  return {
    journal,
    log,
    async boot(rehearse) {
      ;({ spare, base } = await boot({ ...parts, config, harness, rehearse }))
    },
    health: () => ({
      sandbox_id: config.sandbox_id,
      template_hash: config.template_hash,
      ...lifecycle.read(),
      epoch: binding.epoch(),
      harness: held.health(),
      running_turn: held.bound()?.turns.running() ?? null,
      ...loopback.health(),
      journal_seq: journal.lastSeq(),
    }),
    bind: async (request) => binding.bind(request),
    async startTurn(request) {
      const { turns } = needBound()
      await captures.before(() => turns.start(request))
    },
    capture: captures.capture,
    restore: restores.restore,
    refuseModel: loopback.refuse,
    interrupt: (turnId) => needBound().turns.interrupt(turnId),
    replyPermission: (id, decision) => needBound().permissions.reply(id, decision),
    messages: async () => threadOf(harness, needBound().conversation),
    terminal: () => terminalOf(config.harness.id, harness, needBound),
    onChange: lifecycle.onChange,
    listening: lifecycle.listening,
    async stop() {
      await Promise.all([
        held.stop().catch((error: unknown) => log.write(`stop: ${errorText(error)}`)),
        loopback.close(),
        parts.mcpRelay.close(),
      ])
      journal.close()
    },
  }
}
