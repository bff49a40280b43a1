import { SerializeAddon } from '@xterm/addon-serialize'
import headless, { type IBuffer, type IBufferCell, type IBufferLine } from '@xterm/headless'
import type { TtySize } from '../../domain/tty.ts'
import { watchModes } from './modes.ts'

/** Lines above the screen that are kept and given to a viewer who attaches. */
const scrollbackLines = 2_000

/** The screen of a program, whether somebody looks at it or not. */
export type Screen = {
  /** In order. It is drawn a little later. */
  write(bytes: Buffer): void
  /** Bytes that are not drawn yet. */
  pendingBytes(): number
  /** In its place among what is written: only what is drawn by then is wrapped anew. */
  resize(size: TtySize): void
  /** That of what is written next. */
  size(): TtySize
  /** As drawn by now. */
  isAlternate(): boolean
  /**
   * Calls back when everything written before is drawn, and nothing that is written after, with what puts any terminal into the same state: scrollback,
   * screen, colours, cursor, modes; and with the size that it has there.
   */
  snapshot(take: (text: string, size: TtySize) => void): void
  dispose(): void
}

export type ScreenOptions = {
  size: TtySize
  /** What the terminal answers to the program's questions. */
  onAnswer: (text: string) => void
  /** Told after each piece that is drawn. */
  onDrawn: () => void
}

/** To wrap a row that is empty the serializer moves by no columns, which terminals take for one. */
const withoutZeroMoves = (text: string): string => text.replaceAll('\u001b[0C', '').replaceAll('\u001b[0D', '')

/** The same but for some of its properties. */
const like = <T extends object>(original: T, replaced: Partial<T>): T =>
  new Proxy(original, {
    get(_target, key) {
      const value: unknown = Reflect.get(key in replaced ? replaced : original, key)
      return typeof value === 'function' ? (value.bind(original) as unknown) : value
    },
  })

const SPACE = 0x20

/**
 * For the serializer, which loses a wrapped row that begins with an empty cell: behind a full row its cursor is still in that one. So that cell is a space.
 */
const withoutEmptyBeginnings = (terminal: headless.Terminal): headless.Terminal => {
  const cellOf = (line: IBufferLine, x: number, into?: IBufferCell): IBufferCell | undefined => {
    const cell = line.getCell(x, into)
    // Its own interface does not tell of its content.
    if (x === 0 && cell?.getChars() === '') (cell as IBufferCell & { content: number }).content |= SPACE
    return cell
  }
  const bufferOf = (buffer: IBuffer): IBuffer =>
    like(buffer, {
      getLine(y) {
        const line = buffer.getLine(y)
        return line?.isWrapped === true ? like(line, { getCell: (x, into) => cellOf(line, x, into) }) : line
      },
    })
  const { buffer } = terminal
  const { onBufferChange } = buffer
  return like(terminal, {
    get buffer() {
      return {
        active: bufferOf(buffer.active),
        normal: bufferOf(buffer.normal),
        alternate: bufferOf(buffer.alternate),
        onBufferChange,
      }
    },
  })
}

export const createScreen = ({ size: firstSize, onAnswer, onDrawn }: ScreenOptions): Screen => {
  // What a program writes wrong is no news.
  const options = { scrollback: scrollbackLines, allowProposedApi: true, logLevel: 'off' } as const
  const terminal = new headless.Terminal({ ...firstSize, ...options })
  const serializer = new SerializeAddon()
  serializer.activate(withoutEmptyBeginnings(terminal))
  const modes = watchModes(terminal)
  terminal.onData(onAnswer)
  terminal.onBinary(onAnswer)
  let size = firstSize
  let pending = 0
  /** Called back in its place among the pieces. */
  const inOrder = (act: () => void): void => terminal.write('', act)

  return {
    write(bytes) {
      pending += bytes.length
      terminal.write(bytes, () => {
        pending -= bytes.length
        onDrawn()
      })
    },
    pendingBytes: () => pending,
    resize(next) {
      size = next
      inOrder(() => terminal.resize(next.cols, next.rows))
    },
    size: () => size,
    isAlternate: () => terminal.buffer.active.type === 'alternate',
    snapshot(take) {
      inOrder(() => {
        const { cols, rows } = terminal
        take(`\u001bc${withoutZeroMoves(serializer.serialize())}${modes.serialize()}`, { cols, rows })
      })
    },
    dispose: () => terminal.dispose(),
  }
}
