import type { Terminal } from '@xterm/headless'

/** Modes that a terminal is in and that the serializer of xterm does not tell: https://github.com/xtermjs/xterm.js/tree/master/addons/addon-serialize */
export type Modes = {
  /** Sequences that put a terminal which has just been reset into these modes. */
  serialize(): string
}

/** Private modes off by themselves: how the mouse is told of, changes of the colour scheme; and the visible cursor, on by itself. */
const OFF = [1005, 1006, 1007, 1015, 1016, 2031]
const ON = [25]
const stackMax = 32

const numbers = (params: (number | number[])[]): number[] => params.map((each) => (Array.isArray(each) ? 0 : each))

/** Listens to what a program says to the screen; the screen itself hears all of it, too. */
export const watchModes = ({ parser }: Terminal): Modes => {
  const modes = new Map<number, boolean>()
  let title = ''
  let cursor: number | null = null
  let margins: [number, number] | null = null
  let modifiers = 0
  let keyboard: number[] = []
  const forget = (): void => {
    modes.clear()
    ;[title, cursor, margins, modifiers, keyboard] = ['', null, null, 0, []]
  }
  const on = (id: { prefix?: string; intermediates?: string; final: string }, hear: (given: number[]) => void): void =>
    void parser.registerCsiHandler(id, (params) => {
      hear(numbers(params))
      return false
    })

  for (const [final, value] of [
    ['h', true],
    ['l', false],
  ] as const)
    on({ prefix: '?', final }, (given) => {
      for (const mode of given) if (OFF.includes(mode) || ON.includes(mode)) modes.set(mode, value)
    })
  on({ intermediates: ' ', final: 'q' }, ([style = 0]) => void (cursor = style === 0 ? null : style))
  on({ final: 'r' }, ([top = 0, bottom = 0]) => void (margins = top <= 1 && bottom === 0 ? null : [top, bottom]))
  on({ prefix: '>', final: 'm' }, ([which, value = 0]) => void (which === 4 && (modifiers = value)))
  on({ prefix: '>', final: 'u' }, ([flags = 0]) => void (keyboard = [...keyboard, flags].slice(-stackMax)))
  on({ prefix: '<', final: 'u' }, ([count = 1]) => void (keyboard = keyboard.slice(0, -Math.max(1, count))))
  on({ intermediates: '!', final: 'p' }, forget)
  parser.registerEscHandler({ final: 'c' }, () => {
    forget()
    return false
  })
  for (const kind of [0, 2])
    parser.registerOscHandler(kind, (text) => {
      title = text.slice(0, 1_000)
      return false
    })

  return {
    serialize() {
      const set = [...modes].filter(([mode, value]) => value !== ON.includes(mode))
      return [
        ...set.map(([mode, value]) => `\u001b[?${mode}${value ? 'h' : 'l'}`),
        ...(cursor === null ? [] : [`\u001b[${cursor} q`]),
        ...(modifiers === 0 ? [] : [`\u001b[>4;${modifiers}m`]),
        ...keyboard.map((flags) => `\u001b[>${flags}u`),
        ...(title === '' ? [] : [`\u001b]2;${title}\u0007`]),
        // Setting margins moves the cursor, which is put back.
        ...(margins === null ? [] : [`\u001b7\u001b[${margins.join(';')}r\u001b8`]),
      ].join('')
    },
  }
}
