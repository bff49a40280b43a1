import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type {
  BindRequest,
  JournalEntry,
  SupervisorConfig,
  SupervisorStateFile,
  TurnResult,
} from '../domain/supervisor-protocol.ts'
import type { SupervisorTarget } from '../sandbox/supervisor-calls.ts'
import type { SupervisorClient } from '../sandbox/supervisor-client.ts'
import { sandboxToken } from '../sandbox/token.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
export const MASTER_KEY = 'supervisor test master key'

export const HARNESS_DIRS = {
  light: path.join(root, 'bench', 'harness', 'light'),
  'claude-agent-sdk': path.join(root, 'harness', 'claude-agent-sdk'),
  codex: path.join(root, 'harness', 'codex'),
  'claude-code': path.join(root, 'harness', 'claude-code'),
  'codex-terminal': path.join(root, 'harness', 'codex-terminal'),
  opencode: path.join(root, 'harness', 'opencode'),
  'qwen-code': path.join(root, 'harness', 'qwen-code'),
  /** An agent that speaks ACP, and fails as a test arranges. */
  'scripted-acp': path.join(root, 'test', 'acp', 'harness', 'scripted-acp'),
  /** A terminal with bash in it. */
  shell: path.join(root, 'test', 'terminal', 'harness', 'shell'),
}

/** A running `bin/supervisor.ts`. */
export type TestSupervisor = AsyncDisposable & {
  target: SupervisorTarget
  token: string
  dir: string
  process: ChildProcess
  state(): SupervisorStateFile | null
  /** Resolves when `state.json` says so; throws when it says `failed` instead, or after two minutes. */
  until(state: SupervisorStateFile['state']): Promise<SupervisorStateFile>
  exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  output(): string
}

/** A zombie does not run: it waits for its parent to look. */
export const isRunning = (pid: number): boolean => {
  try {
    const state = execFileSync('ps', ['-o', 'state=', '-p', String(pid)], { encoding: 'utf8' })
    return !state.trim().startsWith('Z')
  } catch {
    return false
  }
}

/** A git repository with one commit. @returns its URL */
export const makeRepository = (files: Record<string, string> = { 'README.md': 'hello\n' }, branch = 'main'): string => {
  const dir = mkdtempSync(path.join(tmpdir(), 'lap-repo-'))
  const git = (...args: string[]): Buffer =>
    execFileSync('git', ['-c', 'user.name=test', '-c', 'user.email=test@example.com', ...args], { cwd: dir })
  git('init', '--quiet', '--initial-branch', branch)
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(dir, name)), { recursive: true })
    writeFileSync(path.join(dir, name), text)
  }
  git('add', '.')
  git('commit', '--quiet', '--message', 'first')
  return `file://${dir}`
}

const readState = (dir: string): SupervisorStateFile | null => {
  const file = path.join(dir, 'state.json')
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as SupervisorStateFile) : null
}

type Started = { env: Record<string, string>; input: string; dir: string }

const watchProcess = ({ env, input, dir }: Started) => {
  const child = spawn(process.execPath, [path.join(root, 'bin', 'supervisor.ts')], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'] ?? '', ...env },
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text: Buffer) => (output += text.toString()))
  child.stdin.end(input)
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) =>
    child.once('exit', (code, signal) => resolve({ code, signal })),
  )
  return {
    dir,
    process: child,
    exited,
    output: () => output,
    state: () => readState(dir),
    async until(state: SupervisorStateFile['state']) {
      for (const end = Date.now() + 120_000; Date.now() < end; await sleep(20)) {
        const now = readState(dir)
        if (now?.state === state) return now
        if (now?.state === 'failed') throw new Error(`failed: ${now.failure?.code}: ${now.failure?.message}`)
        if (child.exitCode !== null || child.signalCode !== null)
          throw new Error(`the supervisor ended with ${child.exitCode}:\n${output}`)
      }
      throw new Error(`not ${state} within two minutes:\n${output}`)
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
      // As a driver does. Node can wait for ever in `process.exit`, for a compiler thread that waits for a collection: nodejs/node#54918.
      const late = setTimeout(() => child.kill('SIGKILL'), 5_000)
      await exited
      clearTimeout(late)
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

/** Starts the supervisor as the local driver does: one JSON document on its standard input, nothing else. */
export const startSupervisor = (
  options: Partial<Omit<SupervisorConfig, 'harness'>> & { harness: keyof typeof HARNESS_DIRS; harness_dir?: string },
): TestSupervisor => {
  const { harness, harness_dir, ...given } = options
  const id = options.sandbox_id ?? randomUUID()
  const token = sandboxToken(MASTER_KEY, id)
  const dir = options.dir ?? mkdtempSync(path.join(tmpdir(), 'lap-sandbox-'))
  const config: SupervisorConfig = {
    sandbox_id: id,
    template_hash: 'test',
    purpose: 'pool',
    token,
    listen: { host: '127.0.0.1', port: 0 },
    dir,
    repo_url: '',
    branch: 'main',
    setup_command: null,
    env: {},
    ...given,
    harness: { id: harness, dir: harness_dir ?? HARNESS_DIRS[harness] },
  }
  return {
    ...watchProcess({ env: {}, input: JSON.stringify(config), dir }),
    token,
    target: {
      id,
      get endpoint() {
        const port = readState(dir)?.port ?? null
        return port === null ? null : `http://127.0.0.1:${port}`
      },
    },
  }
}

/** Starts the supervisor as a pod does: what may be seen of it in the environment, and nothing on standard input. @param env changes of that environment */
export const startPodSupervisor = async (
  env: Record<string, string> = {},
): Promise<TestSupervisor & { target: SupervisorTarget & { endpoint: string } }> => {
  const id = randomUUID()
  const token = sandboxToken(MASTER_KEY, id)
  const dir = mkdtempSync(path.join(tmpdir(), 'lap-sandbox-'))
  const given = {
    LAP_SANDBOX_ID: id,
    LAP_TOKEN_SHA256: createHash('sha256').update(token).digest('hex'),
    LAP_LISTEN: '127.0.0.1:0',
    LAP_DIR: dir,
    HARNESS_PATH: path.dirname(HARNESS_DIRS.light),
    ...env,
  }
  const started = watchProcess({ env: given, input: '', dir })
  for (;;) {
    const port = /on port (\d+)/.exec(started.output())?.[1]
    if (port !== undefined) return { ...started, token, target: { id, endpoint: `http://127.0.0.1:${port}` } }
    if (started.process.exitCode !== null) throw new Error(`the supervisor ended:\n${started.output()}`)
    await sleep(10)
  }
}

/** Reads a journal in the background. */
export type JournalReader = Disposable & {
  entries: JournalEntry[]
  /** Resolves with the first entry that is so, also one that has been read already. */
  until(matches: (entry: JournalEntry) => boolean): Promise<JournalEntry>
  finished(turnId: string): Promise<TurnResult>
}

export const readJournal = (client: SupervisorClient, target: SupervisorTarget, after = 0): JournalReader => {
  const entries: JournalEntry[] = []
  const stop = new AbortController()
  const waiting: (() => void)[] = []
  let failure: unknown = null
  const wake = (): void => {
    for (const resolve of waiting.splice(0)) resolve()
  }
  const read = async (): Promise<void> => {
    for await (const entry of client.events(target, { after, signal: stop.signal })) {
      entries.push(entry)
      wake()
    }
  }
  read().catch((error: unknown) => {
    failure = error
    wake()
  })
  const until: JournalReader['until'] = async (matches) => {
    for (let seen = 0; ;) {
      for (; seen < entries.length; seen++) if (matches(entries[seen]!)) return entries[seen]!
      if (failure !== null) throw failure
      await new Promise<void>((resolve) => void waiting.push(resolve))
    }
  }
  return {
    entries,
    until,
    async finished(turnId) {
      const entry = await until(
        ({ type, ...rest }) => type === 'turn_finished' && 'turn_id' in rest && rest.turn_id === turnId,
      )
      return (entry as JournalEntry & { type: 'turn_finished' }).result
    },
    [Symbol.dispose]: () => stop.abort(),
  }
}

/** What binds a sandbox to a session whose gateway is at `url`. */
export const bindRequest = (gateway: { url: string; key: string }, more: Partial<BindRequest> = {}): BindRequest => ({
  epoch: 1,
  session: { id: randomUUID(), agent_id: randomUUID(), title: null },
  env: {},
  prompt: null,
  model: 'scripted-model',
  gateway: { base_url: gateway.url, api_key: gateway.key },
  files: [],
  history: [],
  ...more,
})
