import { SerializeAddon } from '@xterm/addon-serialize'
import headless from '@xterm/headless'
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

export const createScreen = ({ size: firstSize, onAnswer, onDrawn }: ScreenOptions): Screen => {
  // What a program writes wrong is no news.
  const options = { scrollback: scrollbackLines, allowProposedApi: true, logLevel: 'off' } as const
  const terminal = new headless.Terminal({ ...firstSize, ...options })
  const serializer = new SerializeAddon()
  terminal.loadAddon(serializer)
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
