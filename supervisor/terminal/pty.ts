import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { type IPty, spawn } from '@lydell/node-pty'
import type { TtySize } from '../../domain/tty.ts'
import { endLeftovers } from '../leftovers.ts'

/** A program in a pseudoterminal of its own. */
export type PtyProgram = {
  pid: number
  write(bytes: Buffer | string): void
  /** Bytes that the program has not taken yet. */
  pendingBytes(): number
  resize(size: TtySize): void
  /** Stops reading from it, so that it soon waits in its own writes. */
  pause(): void
  resume(): void
  /**
   * Resolves when it has ended, whoever ended it, and its last words have been heard. What it had started ends with it when a signal ended it: it could not do
   * so itself. What it leaves when it ends by itself may be a server, and goes on.
   */
  exited: Promise<PtyExit>
  /** Hangs up, and SIGKILL if it is still there a little later. */
  stop(): Promise<void>
}

export type PtyExit = { code: number | null; signal: number | null }

export type PtyOptions = {
  command: [string, ...string[]]
  cwd: string
  /** Its whole environment. */
  env: Record<string, string>
  size: TtySize
  onData: (bytes: Buffer) => void
}

const graceMs = 1_500

/** What node-pty writes to; its own interface does not tell how much waits there. */
const streamOf = (pty: IPty): Duplex => (pty as IPty & { _socket: Duplex })._socket

/** @throws Error when no terminal can be had. A program that cannot be started ends at once. */
export const startPty = ({ command: [file, ...args], cwd, env, size, onData }: PtyOptions): PtyProgram => {
  const mark = { LAP_PROGRAM: randomUUID() }
  const pty = spawn(file, args, { name: 'xterm-256color', cwd, env: { ...env, ...mark }, ...size, encoding: null })
  const stream = streamOf(pty)
  // Said to be text, bytes without an encoding.
  pty.onData((bytes) => onData(bytes as unknown as Buffer))
  let ended = false
  let stopped = false
  /** All that it has started and left in its group; it leads one of its own. */
  const signalGroup = (signal: NodeJS.Signals): void => {
    try {
      process.kill(-pty.pid, signal)
    } catch {
      // Nobody is left.
    }
  }
  const own = new Promise<PtyExit>((resolve) => {
    pty.onExit(({ exitCode, signal = 0 }) => {
      ended = true
      resolve(signal === 0 ? { code: exitCode, signal: null } : { code: null, signal })
    })
  })
  const exited = own.then(async (exit) => {
    // Where processes cannot be listed, they stay; that it has ended is told in any case.
    if (exit.signal !== null && !stopped) await endLeftovers(`LAP_PROGRAM=${mark.LAP_PROGRAM}`).catch(() => undefined)
    return exit
  })
  return {
    pid: pty.pid,
    write(bytes) {
      if (!ended && stream.writable) stream.write(bytes)
    },
    pendingBytes: () => stream.writableLength,
    resize({ cols, rows }) {
      // Between its last word and its end the terminal is closed already.
      if (!ended && stream.writable) pty.resize(cols, rows)
    },
    pause: () => pty.pause(),
    resume: () => pty.resume(),
    exited,
    async stop() {
      if (ended) return
      stopped = true
      signalGroup('SIGHUP')
      // What nobody reads may keep it from ending.
      pty.resume()
      const late = setTimeout(() => signalGroup('SIGKILL'), graceMs)
      await exited
      clearTimeout(late)
      // What it has started may take longer than it, such as the program behind a launcher.
      signalGroup('SIGKILL')
    },
  }
}
