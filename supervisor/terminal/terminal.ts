import { type TtySize, TTY_SIZE_DEFAULT, isTyping } from '../../domain/tty.ts'
import { type PtyExit, type PtyProgram, startPty } from './pty.ts'
import { type Screen, createScreen } from './screen.ts'
import { type Sequences, createSequences } from './sequences.ts'
import { type Viewer, type Viewers, createViewers } from './viewers.ts'

/** How a program is started in a terminal. */
export type TerminalProgram = {
  /** Program and arguments. They show in the process list: no secrets. */
  command: [string, ...string[]]
  /** Added to the environment of its processes. */
  env: Record<string, string>
  /** Written below its home before each start, by path. */
  files?: Record<string, string>
  /** False: what is typed into it is no prompt for a model, so no turn makes it warm. */
  takesPrompts?: boolean
}

/**
 * One screen and the program that draws on it, for any number of viewers.
 *
 *   stopped ──start──► running ──the program ends──► ended      stopped ──wait──► waiting
 *                        ▲                             │                            │
 *                        └─ a key, or a viewer who comes ◄───────────── a key ──────┘
 */
export type Terminal = {
  /** Process id, or null while none runs. */
  pid(): number | null
  /** Starts the program; another one is ended before. */
  start(spec: StartSpec): Promise<void>
  /** Ends the program, says something, and starts another one when somebody presses a key. */
  wait(spec: StartSpec, text: string): Promise<void>
  /** Resolves when nothing has been written for so long, or after the limit. */
  quiet(options: { quietMs: number; limitMs: number }): Promise<void>
  /** Resolves when the running program has written something, or has ended. @returns how it ended */
  firstOutput(): Promise<PtyExit | null>
  attach(viewer: Viewer, size: TtySize | null): void
  detach(viewer: Viewer): void
  /** What somebody types. */
  type(bytes: Buffer): void
  resize(size: TtySize): void
  /** Bytes typed that the program has not taken yet. */
  pendingInputBytes(): number
  /** Ends the program, and leaves the viewers. @param reason for them */
  stop(reason: string): Promise<void>
}

export type StartSpec = { command: [string, ...string[]]; cwd: string; env: Record<string, string> }

export type TerminalOptions = {
  /** Of the program, for people. */
  name: string
  log: (line: string) => void
  /** It ended by itself. */
  onExit: (exit: PtyExit) => void
}

/** Beyond the first the program waits until the screen has drawn what is there, down to the second. */
const screenBytesMax = 1024 * 1024
const screenBytesResumed = 256 * 1024
/** What waits for a program that asks and does not read; further answers it does not get. */
const answerBytesMax = 1024 * 1024
const pollMs = 20
/** A wide character has two columns. */
const colsMin = 2

/** Ends whatever a program has left the terminal in: margins, a mouse, a hidden cursor, colours. */
const CALM =
  '\u001b7\u001b[r\u001b8\u001b[?1000l\u001b[?1002l\u001b[?1003l\u001b[?1006l\u001b[?1004l\u001b[?2004l\u001b[?2026l\u001b[<32u\u001b[>4;0m\u001b[?25h\u001b[0m'
const RESET = '\u001bc'
const LEAVE_ALTERNATE = '\u001b[?1049l'

const exitText = (name: string, { code, signal }: PtyExit): string =>
  `${name} ${signal === null ? `has ended with ${code}` : `was ended by signal ${signal}`}`

type Held = {
  screen: Screen
  viewers: Viewers
  program: PtyProgram | null
  spec: StartSpec | null
  /** For a key, and not only for a viewer. */
  waits: boolean
  sequences: Sequences
  lastOutputAt: number
  paused: boolean
  stopping: boolean
}

/** What the program writes goes to the screen and to the viewers, in one order. */
const show = (held: Held, { whole, shown }: { whole: Buffer; shown: Buffer }): void => {
  if (whole.length === 0) return
  held.screen.write(whole)
  held.viewers.show(shown)
}

/** Something of our own, on the program's screen. */
const say = (held: Held, text: string): void => {
  const bytes = Buffer.from(text)
  show(held, { whole: bytes, shown: bytes })
}

const hear = (held: Held, bytes: Buffer): void => {
  held.lastOutputAt = performance.now()
  show(held, held.sequences.push(bytes))
  if (held.paused || held.screen.pendingBytes() < screenBytesMax) return
  held.paused = true
  held.program?.pause()
}

const resumeDrawn = (held: Held): void => {
  if (!held.paused || held.screen.pendingBytes() > screenBytesResumed) return
  held.paused = false
  held.program?.resume()
}

const createHeld = (): Held => {
  const screen = createScreen({
    size: TTY_SIZE_DEFAULT,
    onAnswer(text) {
      const { program } = held
      if (program !== null && program.pendingBytes() < answerBytesMax) program.write(text)
    },
    onDrawn: () => resumeDrawn(held),
  })
  const held: Held = {
    screen,
    viewers: createViewers(screen),
    program: null,
    spec: null,
    waits: false,
    sequences: createSequences(),
    lastOutputAt: 0,
    paused: false,
    stopping: false,
  }
  return held
}

const run = (held: Held, spec: StartSpec, { name, log, onExit }: TerminalOptions): void => {
  held.sequences = createSequences()
  held.paused = false
  held.lastOutputAt = 0
  const size = held.screen.size()
  const onData = (bytes: Buffer): void => {
    if (held.program === program) hear(held, bytes)
  }
  const program = startPty({ ...spec, size, onData })
  held.program = program
  held.spec = spec
  held.waits = false
  void program.exited.then((exit) => {
    if (held.program !== program) return
    show(held, held.sequences.rest())
    held.program = null
    if (held.stopping) return
    const text = exitText(name, exit)
    log(text)
    say(
      held,
      `${held.screen.isAlternate() ? LEAVE_ALTERNATE : ''}${CALM}\r\n[${text}. Press a key to start it again.]\r\n`,
    )
    onExit(exit)
  })
}

const end = async (held: Held): Promise<void> => {
  const { program } = held
  if (program === null) return
  held.program = null
  await program.stop()
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

export const createTerminal = (options: TerminalOptions): Terminal => {
  const held = createHeld()
  /** @returns whether it had ended, and was started */
  const revive = (): boolean => {
    if (held.program !== null || held.spec === null || held.stopping) return false
    run(held, held.spec, options)
    return true
  }
  const resize = (wanted: TtySize): void => {
    const { cols, rows } = held.screen.size()
    const size = { ...wanted, cols: Math.max(wanted.cols, colsMin) }
    if (cols === size.cols && rows === size.rows) return
    held.screen.resize(size)
    held.program?.resize(size)
    held.viewers.resized(size)
  }
  return {
    pid: () => held.program?.pid ?? null,
    async start(spec) {
      await end(held)
      say(held, RESET)
      run(held, spec, options)
    },
    async wait(spec, text) {
      await end(held)
      Object.assign(held, { spec, waits: true })
      say(held, `${RESET}[${text} Press a key to start ${options.name}.]\r\n`)
    },
    async quiet({ quietMs, limitMs }) {
      const limit = performance.now() + limitMs
      const isQuiet = (): boolean => held.lastOutputAt > 0 && performance.now() - held.lastOutputAt > quietMs
      while (held.program !== null && !isQuiet() && performance.now() < limit) await sleep(pollMs)
    },
    async firstOutput() {
      const exited = held.program?.exited ?? Promise.resolve({ code: null, signal: null })
      for (;;) {
        const exit = await Promise.race([exited, sleep(pollMs).then(() => null)])
        if (exit !== null || held.lastOutputAt > 0) return exit
      }
    },
    attach(viewer, size) {
      if (size !== null) resize(size)
      if (!held.waits) revive()
      held.viewers.add(viewer)
    },
    detach: (viewer) => held.viewers.remove(viewer),
    type(bytes) {
      if (held.program !== null) held.program.write(bytes)
      else if (isTyping(bytes)) revive()
    },
    resize,
    pendingInputBytes: () => held.program?.pendingBytes() ?? 0,
    async stop(reason) {
      held.stopping = true
      held.viewers.leave(reason)
      await end(held)
      held.screen.dispose()
    },
  }
}
