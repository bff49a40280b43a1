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
  /** Draws what is pending, then changes the size; lines are wrapped anew. */
  resize(size: TtySize): void
  size(): TtySize
  /** As drawn by now. */
  isAlternate(): boolean
  /**
   * Calls back when everything written before is drawn, and nothing that is written after, with what puts any terminal into the same state: scrollback,
   * screen, colours, cursor, modes.
   */
  snapshot(take: (text: string) => void): void
  dispose(): void
}

export type ScreenOptions = {
  size: TtySize
  /** What the terminal answers to the program's questions. */
  onAnswer: (text: string) => void
  /** Told after each piece that is drawn. */
  onDrawn: () => void
}

export const createScreen = ({ size, onAnswer, onDrawn }: ScreenOptions): Screen => {
  // What a program writes wrong is no news.
  const options = { scrollback: scrollbackLines, allowProposedApi: true, logLevel: 'off' } as const
  const terminal = new headless.Terminal({ ...size, ...options })
  const serializer = new SerializeAddon()
  terminal.loadAddon(serializer)
  const modes = watchModes(terminal)
  terminal.onData(onAnswer)
  terminal.onBinary(onAnswer)
  let pending = 0

  return {
    write(bytes) {
      pending += bytes.length
      terminal.write(bytes, () => {
        pending -= bytes.length
        onDrawn()
      })
    },
    pendingBytes: () => pending,
    resize: ({ cols, rows }) => terminal.resize(cols, rows),
    size: () => ({ cols: terminal.cols, rows: terminal.rows }),
    isAlternate: () => terminal.buffer.active.type === 'alternate',
    snapshot(take) {
      // Called back in its place among the pieces.
      terminal.write('', () => take(`\u001bc${serializer.serialize()}${modes.serialize()}`))
    },
    dispose: () => terminal.dispose(),
  }
}
