import { setTimeout as sleep } from 'node:timers/promises'
import headless from '@xterm/headless'
import { WebSocket } from 'ws'
import { TTY_PROTOCOL, type TtySize } from '../../domain/tty.ts'

/** A terminal of somebody who looks at a screen somewhere else, over a WebSocket. */
export type TerminalClient = AsyncDisposable & {
  socket: WebSocket
  /** Everything that was received, as it came. */
  received: { bytes: Buffer; isBinary: boolean }[]
  notices: Record<string, unknown>[]
  /** Lines that are seen, the empty ones at the end left out. */
  screen(): string[]
  /** With what is above the screen. */
  everything(): string[]
  cursor(): { x: number; y: number }
  /** Resolves when what is seen matches; throws after a minute, with what was seen. */
  until(what: RegExp): Promise<string>
  /** Resolves when what was received is drawn. */
  drawn(): Promise<void>
  type(text: string | Buffer): void
  resize(size: TtySize): void
  /** Also as answers of a terminal to a program's questions. */
  answers: string[]
  closed: Promise<{ code: number; reason: string }>
  /** Is it in the alternate screen. */
  isAlternate(): boolean
}

/** What a server says that does not open a terminal. */
export class Refused extends Error {
  override name = 'Refused'
  readonly status: number
  readonly body: string
  readonly headers: Record<string, string | string[] | undefined>
  constructor(status: number, body: string, headers: Refused['headers']) {
    super(`refused with ${status}: ${body}`)
    this.status = status
    this.body = body
    this.headers = headers
  }
}

const untilMs = 60_000
const pollMs = 15

export type ClientOptions = {
  headers?: Record<string, string>
  /** null: none, as clients of the reference. */
  protocol?: string | null
  size?: TtySize
  /** Draws nothing: it only receives. */
  blind?: boolean
}

const opened = async (url: string, { headers = {}, protocol = TTY_PROTOCOL }: ClientOptions): Promise<WebSocket> => {
  const socket = new WebSocket(url, protocol === null ? [] : [protocol], { headers })
  await new Promise<void>((resolve, reject) => {
    socket.once('open', () => {
      // At once: its first frames may have come with the answer.
      socket.pause()
      resolve()
    })
    socket.once('error', reject)
    socket.once('unexpected-response', (_request, response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (text: string) => (body += text))
      response.on('end', () => reject(new Refused(response.statusCode ?? 0, body, response.headers)))
    })
  })
  return socket
}

/** @throws Refused */
export const openTerminal = async (url: string, options: ClientOptions = {}): Promise<TerminalClient> => {
  const size = options.size ?? { cols: 100, rows: 30 }
  const terminal = new headless.Terminal({ ...size, scrollback: 10_000, allowProposedApi: true, logLevel: 'off' })
  const socket = await opened(url, options)
  const received: TerminalClient['received'] = []
  const notices: Record<string, unknown>[] = []
  const answers: string[] = []
  terminal.onData((text) => void answers.push(text))
  const closed = new Promise<{ code: number; reason: string }>((resolve) =>
    socket.once('close', (code, reason) => resolve({ code, reason: reason.toString() })),
  )
  socket.on('error', () => undefined)
  socket.on('message', (data, isBinary) => {
    const bytes = data as Buffer
    const isControl = !isBinary && socket.protocol === TTY_PROTOCOL
    if (isControl) {
      const notice = JSON.parse(bytes.toString()) as Record<string, unknown>
      notices.push(notice)
      const resize = (): void => terminal.resize(Number(notice['cols']), Number(notice['rows']))
      // What came before is drawn in the size before.
      if (notice['type'] === 'size') terminal.write('', resize)
      return
    }
    received.push({ bytes, isBinary })
    if (options.blind !== true) terminal.write(bytes)
  })
  const beat = setInterval(() => socket.readyState === WebSocket.OPEN && socket.ping(), 1_000)
  socket.once('close', () => clearInterval(beat))
  socket.resume()
  const linesFrom = (first: number): string[] => {
    const { active } = terminal.buffer
    const lines = Array.from(
      { length: active.baseY + terminal.rows - first },
      (_, i) => active.getLine(first + i)?.translateToString(true) ?? '',
    )
    return lines.slice(0, lines.findLastIndex((line) => line !== '') + 1)
  }
  const drawn = (): Promise<void> => new Promise((resolve) => terminal.write('', resolve))
  const screen = (): string[] => linesFrom(terminal.buffer.active.baseY)
  return {
    socket,
    received,
    notices,
    answers,
    closed,
    drawn,
    screen,
    everything: () => linesFrom(0),
    cursor: () => ({ x: terminal.buffer.active.cursorX, y: terminal.buffer.active.cursorY }),
    isAlternate: () => terminal.buffer.active.type === 'alternate',
    async until(what) {
      for (const end = performance.now() + untilMs; ; await sleep(pollMs)) {
        await drawn()
        const seen = screen().join('\n')
        if (what.test(seen)) return seen
        if (performance.now() > end) throw new Error(`not seen: ${what}\n${seen}`)
        if (socket.readyState === WebSocket.CLOSED) throw new Error(`closed before ${what} was seen:\n${seen}`)
      }
    },
    type: (text) => socket.send(Buffer.from(text as string)),
    resize: ({ cols, rows }) => socket.send(JSON.stringify({ type: 'resize', cols, rows })),
    async [Symbol.asyncDispose]() {
      if (socket.readyState !== WebSocket.CLOSED) {
        socket.terminate()
        await closed
      }
      terminal.dispose()
    },
  }
}
