import { afterEach, expect, test } from '@jest/globals'
import headless from '@xterm/headless'
import type { TtySize } from '../../domain/tty.ts'
import { type Screen, createScreen } from './screen.ts'
import { type Viewer, type Viewers, createViewers } from './viewers.ts'

const WIDE: TtySize = { cols: 100, rows: 10 }
const NARROW: TtySize = { cols: 40, rows: 8 }
const ends: (() => void)[] = []
afterEach(() => {
  for (const end of ends.splice(0)) end()
})

const build = () => {
  const screen = createScreen({ size: WIDE, onAnswer: () => undefined, onDrawn: () => undefined })
  ends.push(() => screen.dispose())
  const viewers = createViewers(screen)
  return {
    screen,
    viewers,
    show(text: string): void {
      screen.write(Buffer.from(text))
      viewers.show(Buffer.from(text))
    },
    resize(size: TtySize): void {
      screen.resize(size)
      viewers.resized(size)
    },
  }
}

type Happened = { size: TtySize } | { text: string }

/** Somebody who looks on, and writes down what happens. */
const look = (viewers: Viewers) => {
  const happened: Happened[] = []
  let [pending, onTaken] = [0, (): void => undefined]
  const viewer: Viewer = {
    send(bytes, onSent) {
      happened.push({ text: bytes.toString() })
      onTaken = onSent
    },
    pendingBytes: () => pending,
    resized: (size) => void happened.push({ size }),
    leave: () => undefined,
  }
  viewers.add(viewer)
  return {
    happened,
    stall: () => void (pending = 100_000_000),
    take() {
      pending = 0
      onTaken()
    },
  }
}

/** The lines of a terminal that waits for each thing to be drawn before the next. */
const draw = async (happened: Happened[]): Promise<string[]> => {
  const terminal = new headless.Terminal({ cols: 7, rows: 7, scrollback: 2_000, allowProposedApi: true })
  ends.push(() => terminal.dispose())
  for (const each of happened)
    if ('size' in each) terminal.resize(each.size.cols, each.size.rows)
    else await new Promise<void>((resolve) => terminal.write(each.text, resolve))
  const { active } = terminal.buffer
  return Array.from({ length: active.length }, (_, i) => active.getLine(i)?.translateToString(true) ?? '')
}

const drawn = (screen: Screen): Promise<void> => new Promise((resolve) => screen.snapshot(() => resolve()))

const RESET = '\u001bc'
const words = (from: number, count: number): string =>
  Array.from({ length: count }, (_, i) => `word-${from + i}`).join(' ')
/** What is wrapped by the terminal, and what has a place on its screen. */
const page = (from: number): string => `${words(from, 40)}\r\n\u001b[2;80Hfar-${from}\u001b[99;1H\r\n`

test('a change of size has its place among what is written, for the screen and for whoever comes when', async () => {
  const { screen, viewers, show, resize } = build()
  const first = look(viewers)
  await drawn(screen)
  show(page(0))
  const between = look(viewers)
  show(page(100))
  resize(NARROW)
  expect(screen.size()).toEqual(NARROW)
  const after = look(viewers)
  show(page(200))
  resize(WIDE)
  show(page(300))
  await drawn(screen)
  const late = look(viewers)
  await drawn(screen)
  const expected = await draw([
    { size: WIDE },
    { text: `${RESET}${page(0)}${page(100)}` },
    { size: NARROW },
    { text: page(200) },
    { size: WIDE },
    { text: page(300) },
  ])
  expect(first.happened.filter((each) => 'size' in each)).toEqual([{ size: WIDE }, { size: NARROW }, { size: WIDE }])
  expect(await draw(first.happened)).toEqual(expected)
  expect(await draw(late.happened)).toEqual(expected)
  expect(await draw(between.happened)).toEqual(expected)
  expect(await draw(after.happened)).toEqual(expected)
})

test('who comes later sees a row, too, that is the wrapped end of a full one and begins with nothing', async () => {
  const { screen, viewers, show } = build()
  const first = look(viewers)
  await drawn(screen)
  for (const colour of ['', '\u001b[44m']) show(`${colour}${'x'.repeat(150)}\r\u001b[20X\r\nbehind\u001b[0m\r\n`)
  await drawn(screen)
  const late = look(viewers)
  await drawn(screen)
  expect(await draw(late.happened)).toEqual(await draw(first.happened))
})

test('who has fallen behind is given the size with the screen', async () => {
  const { screen, viewers, show, resize } = build()
  const slow = look(viewers)
  await drawn(screen)
  show(page(0))
  slow.stall()
  show(page(100))
  resize(NARROW)
  show(page(200))
  slow.take()
  await drawn(screen)
  const late = look(viewers)
  await drawn(screen)
  expect(slow.happened.slice(-2)).toEqual(late.happened)
  expect(slow.happened.at(-2)).toEqual({ size: NARROW })
})
