import { createHash } from 'node:crypto'
import { gunzipSync, gzipSync } from 'node:zlib'
import {
  type BindReply,
  type BindRequest,
  type CheckpointManifest,
  type Configuration,
  hasBooted,
  type Health,
  type JournalEntry,
  type RestoreReply,
  type TurnRequest,
  type TurnResult,
} from '../../domain/supervisor-protocol.ts'

/**
 * What a supervisor answers, without a sandbox around it: one for each fake pod. It follows the protocol to the letter (configuration, epochs, turns, journal), and its
 * harness repeats what it is told. It has one file, a line for each turn, which with the thread is what its checkpoints hold.
 *
 * How it fares is told by what a real one would fail of:
 *
 *     repo_url …/missing…       the clone fails
 *     setup_command false       the set-up fails
 *     setup_command sleep 1.5   booting takes 1.5 s
 *     a message wait 5000 …     the turn takes 5 s
 */
export type PodSupervisor = {
  isKnown(authorization: string | undefined): boolean
  health(): Health
  /** @throws Refusal */
  configure(body: Configuration, raw: string): void
  /** @throws Refusal */
  bind(body: BindRequest): BindReply
  /** @throws Refusal */
  startTurn(body: TurnRequest): void
  interrupt(turnId: string | undefined): void
  messages(): object[]
  /** @throws Refusal */
  takeCheckpoint(): { manifest: CheckpointManifest; archive: Buffer }
  /** @throws Refusal */
  restoreCheckpoint(id: string, archive: Buffer): RestoreReply
  /** Its one file, a line for each turn. */
  file(): string[]
  journal(after: number): JournalEntry[]
  /** Resolves when anything has changed, or by the signal. */
  changed(signal: AbortSignal): Promise<void>
  isConfigured(): boolean
  /** Whether there is nothing more to be said of its boot. */
  hasBooted(): boolean
}

/** How long the supervisor's harness thinks about a turn. */
export type Pace = { turnMs: number }

export class Refusal extends Error {
  override name = 'Refusal'
  readonly status: number
  readonly code: string
  constructor(status: number, code: string, message: string) {
    super(message)
    this.status = status
    this.code = code
  }
}

const failureOf = ({ repo_url, setup_command }: Configuration): Health['failure'] => {
  if (/\/missing/.test(repo_url)) return { code: 'clone_failed', message: `repository ${repo_url} was not found` }
  if (setup_command === 'false') return { code: 'setup_failed', message: 'the set-up command ended with 1' }
  return null
}

const bootMs = (command: string | null): number => Number(/^sleep (\d+(\.\d+)?)$/.exec(command ?? '')?.[1] ?? 0) * 1_000

type Distributed<T> = T extends unknown ? Omit<T, 'seq' | 'at'> : never

/** @param identity what the pod's environment says */
export const createPodSupervisor = (
  identity: { sandboxId: string; tokenSha256: string },
  pace: Pace,
): PodSupervisor => {
  let configured: { body: Configuration; raw: string } | null = null
  let bound: { request: BindRequest; reply: BindReply } | null = null
  let running: { id: string; timer: NodeJS.Timeout } | null = null
  const entries: JournalEntry[] = []
  const turns = new Map<string, TurnResult | null>()
  let messages: object[] = []
  let file: string[] = []
  let restored: { id: string; conversation: string } | null = null
  let waiting: (() => void)[] = []
  const health: Health = {
    state: 'booting',
    phase: null,
    sandbox_id: identity.sandboxId,
    template_hash: '',
    epoch: null,
    harness: { id: '', running: false, pid: null, restarts: 0 },
    running_turn: null,
    journal_seq: 0,
    failure: null,
  }
  const tell = (): void => {
    const woken = waiting
    waiting = []
    for (const wake of woken) wake()
  }
  const enter = (change: Partial<Health>): void => {
    Object.assign(health, change)
    tell()
  }
  const append = (entry: Distributed<JournalEntry>): void => {
    entries.push({ seq: entries.length + 1, at: new Date().toISOString(), ...entry })
    enter({ journal_seq: entries.length })
  }
  const finish = (turnId: string, result: TurnResult): void => {
    if (running?.id === turnId) {
      clearTimeout(running.timer)
      running = null
    }
    turns.set(turnId, result)
    health.running_turn = null
    append({ type: 'turn_finished', turn_id: turnId, result })
  }
  const boot = (body: Configuration): void => {
    const failure = failureOf(body)
    if (failure !== null) return enter({ state: 'failed', phase: null, failure })
    enter({ state: 'booted', phase: null, harness: { ...health.harness, running: true } })
    if (body.purpose === 'pool') enter({ state: 'warm' })
  }
  const usage = { input_tokens: 1, output_tokens: 1, cached_tokens: 0, cost_usd: null, requests: 1 }

  return {
    isKnown: (authorization = '') =>
      createHash('sha256')
        .update(authorization.replace(/^Bearer /, ''))
        .digest('hex') === identity.tokenSha256,
    health: () => ({ ...health }),
    configure(body, raw) {
      if (body.sandbox_id !== identity.sandboxId)
        throw new Refusal(422, 'invalid', `sandbox_id: this is sandbox ${identity.sandboxId}`)
      if (configured !== null) {
        if (configured.raw !== raw) throw new Refusal(409, 'conflict', 'the sandbox has another configuration')
        return
      }
      configured = { body, raw }
      const harness = { ...health.harness, id: body.harness.id }
      enter({ phase: 'cloning_repo', template_hash: body.template_hash, harness })
      setTimeout(boot, bootMs(body.setup_command), body).unref()
    },
    bind(request) {
      if (bound !== null && bound.request.epoch !== request.epoch)
        throw new Refusal(409, 'other_epoch', `the sandbox is bound with epoch ${bound.request.epoch}`)
      if (bound === null) {
        if (health.state !== 'booted' && health.state !== 'warm')
          throw new Refusal(409, 'not_ready', `the sandbox is ${health.state}`)
        if (request.checkpoint !== undefined && request.checkpoint.id !== restored?.id)
          throw new Refusal(409, 'no_checkpoint', `checkpoint ${request.checkpoint.id} was not restored here`)
        const own = { epoch: request.epoch, harness_session_id: `ses_${identity.sandboxId}` }
        const kept = { conversation: true, files: 1, problems: [] }
        const back = restored && { harness_session_id: restored.conversation, restored: kept }
        bound = { request, reply: { ...own, ...back } }
        enter({ state: 'bound', epoch: request.epoch })
      }
      return bound.reply
    },
    startTurn({ turn_id, parts }) {
      if (bound === null) throw new Refusal(409, 'not_bound', 'no session has this sandbox')
      if (turns.has(turn_id)) return
      if (running !== null) throw new Refusal(409, 'turn_running', `turn ${running.id} is running`)
      const info = { id: `msg_${turn_id}`, role: 'assistant', sessionID: bound.reply.harness_session_id }
      const text = parts.map((part) => (typeof part['text'] === 'string' ? part['text'] : '')).join('')
      const reply = { info, parts: [{ type: 'text', text }] }
      turns.set(turn_id, null)
      health.running_turn = turn_id
      append({ type: 'turn_started', turn_id })
      const end = (): void => {
        messages.push(reply)
        file.push(text)
        finish(turn_id, { status: 'done', reply, error: null, usage })
      }
      const waits = Number(/^wait (\d+)/.exec(text)?.[1] ?? pace.turnMs)
      running = { id: turn_id, timer: setTimeout(end, waits).unref() }
    },
    interrupt(turnId) {
      if (running === null || (turnId !== undefined && running.id !== turnId)) return
      finish(running.id, { status: 'cancelled', reply: null, error: null, usage })
    },
    messages: () => messages,
    takeCheckpoint() {
      if (bound === null) throw new Refusal(409, 'not_bound', 'no session has this sandbox')
      if (running !== null) throw new Refusal(409, 'turn_running', `turn ${running.id} is running`)
      const state = { conversation: bound.reply.harness_session_id, messages, file }
      const archive = gzipSync(JSON.stringify(state))
      const { conversation } = state
      const sizes = { files: 1, bytes: file.join('\n').length }
      const whole = { has_conversation: true, base_commit: null, omitted: [], omitted_more: 0 }
      return { manifest: { version: 1, harness: { id: health.harness.id }, conversation, ...sizes, ...whole }, archive }
    },
    restoreCheckpoint(id, archive) {
      if (bound !== null) throw new Refusal(409, 'bound', 'the sandbox is bound')
      const state = JSON.parse(gunzipSync(archive).toString()) as {
        conversation: string
        messages: object[]
        file: string[]
      }
      ;({ messages, file } = state)
      restored = { id, conversation: state.conversation }
      return { checkpoint_id: id, conversation: true, files: 1, problems: [] }
    },
    file: () => file,
    journal: (after) => entries.slice(after),
    changed: (signal) =>
      new Promise((resolve) => {
        if (signal.aborted) return resolve()
        waiting.push(resolve)
        signal.addEventListener('abort', () => resolve(), { once: true })
      }),
    isConfigured: () => configured !== null,
    hasBooted: () => health.state === 'failed' || hasBooted(configured?.body.purpose ?? 'session', health.state),
  }
}
