import { expect, test } from '@jest/globals'
import { createSequences } from './sequences.ts'

const ESC = '\u001b'

/** Pieces of what comes in pieces. */
const pushed = (...parts: (string | Buffer)[]): { whole: string[]; shown: string[] } => {
  const sequences = createSequences()
  const pieces = parts.map((part) => sequences.push(Buffer.from(part as string)))
  return { whole: pieces.map(({ whole }) => whole.toString()), shown: pieces.map(({ shown }) => shown.toString()) }
}

test.each([
  ['a colour', 'a\u001b[3', '1mb', 'a'],
  ['an escape alone', 'a\u001b', '[mb', 'a'],
  ['a title', 'a\u001b]2;ti', 'tle\u0007b', 'a'],
  ['a title that ends with ST', 'a\u001b]2;title\u001b', '\\b', 'a'],
  ['a device string', 'a\u001bPq#0', '\u001b\\b', 'a'],
  ['a character set', 'a\u001b(', 'Bb', 'a'],
])('%s that is torn is held back until it is whole', (_what, first, second, before) =>
  expect(pushed(first, second).whole).toEqual([before, `${first.slice(before.length)}${second}`]),
)

test('a character that is torn is held back, in whatever pieces it comes', () => {
  const [a, b, c, d] = Buffer.from('😀')
  const part = (...bytes: (number | undefined)[]): Buffer => Buffer.from(bytes as number[])
  expect(pushed('x', part(a), part(b, c), part(d, 0x79)).whole).toEqual(['x', '', '', '😀y'])
  expect(pushed(Buffer.from([0x61, 0xff, 0xfe])).whole.join('')).toHaveLength(3)
})

test.each([
  ['colours', `a${ESC}[1;31mb${ESC}[0m`],
  ['words between two strings', `${ESC}]0;one${ESC}\\mid${ESC}]0;two\u0007end`],
  ['a sequence that another one breaks off', `${ESC}[3${ESC}[0mb`],
])('%s pass as they are', (_what, text) => expect(pushed(text)).toEqual({ whole: [text], shown: [text] }))

test.each([
  '[c', '[0c', '[>c', '[>0c', '[=c', '[5n', '[6n', '[?6n', '[?996n', '[?2026$p', '[4$p', '[>q', '[>0q', '[?u', '[18t', '[14;2t', ']10;?\u0007', ']11;?\u001b\\', ']4;1;?\u0007',
  ']4;1;?;2;?\u0007', ']4;1;rgb:00/00/00;2;?\u001b\\', ']10;?;?\u0007', ']5;0;?\u009c', ']21;foreground=?;background=?\u001b\\', '[?4m', '[?1;1;0S', '_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\u001b\\',
  ']52;c;?\u0007', 'P$qm\u001b\\', 'P+q544e\u001b\\', 'Z',
])('the question ESC %j is for the screen alone', (question) => {
  const text = `a${ESC}${question}b`
  expect(pushed(text)).toEqual({ whole: [text], shown: ['ab'] })
}) // prettier-ignore

test.each([
  ['what are you', '\u009bc'],
  ['where is the cursor', '\u009b6n'],
  ['a colour', '\u009d11;?\u0007'],
  ['a colour, of each introducer one', '\u009d4;1;?;2;?\u001b\\'],
  ['colours', '\u009d10;?;?\u009c'],
  ['settings', '\u0090$qm\u009c'],
  ['what are you, in one character', '\u009a'],
  ['all colours', `\u001b]4;${Array.from({ length: 256 }, (_, i) => `${i};?`).join(';')}\u0007`],
])('the question %s is for the screen alone, also where it begins or ends with one character', (_what, question) => {
  const text = `é${question}b`
  expect(pushed(text)).toEqual({ whole: [text], shown: ['éb'] })
  const bytes = [...Buffer.from(text)].map((byte) => Buffer.from([byte]))
  expect(pushed(...bytes).shown.join('')).toBe('éb')
})

test.each([
  ['a sequence', '\u009b31m'],
  ['a title with letters of all kinds', '\u009d2;Übung – 題\u009c'],
  ['a string that a sequence breaks off', '\u001b]2;title\u009b31m'],
  ['a sequence that a letter breaks off', '\u001b[3é'],
])('%s is whole in whatever pieces it comes', (_what, sequence) => {
  const text = `a${sequence}b`
  const bytes = [...Buffer.from(text)].map((byte) => Buffer.from([byte]))
  const { whole, shown } = pushed(...bytes)
  expect(whole.join('')).toBe(text)
  expect(shown).toEqual(whole)
  expect(whole.every((piece) => !piece.includes('\ufffd'))).toBe(true)
})

test.each([
  ['an end of nothing', '\u009c'],
  ['bytes that are no characters', Buffer.from([0x61, 0x9b, 0x63, 0x62])],
])('%s: no question', (_what, text) => {
  const { whole, shown } = pushed(text)
  expect(shown).toEqual(whole)
})

test.each([
  '[5m',
  '[4m',
  '[3S',
  ']4;1;rgb:00/00/00\u0007',
  ']2;what?;?\u0007',
  ']8;;https://example.com/?\u0007',
  ']21;foreground=#ffffff\u0007',
  '_Gf=24,s=1,v=1;AAAA\u001b\\',
  '[6q',
  '[2J',
  '[?25h',
  '[22;0t',
  ']10;rgb:ff/ff/ff\u0007',
  ']52;c;YQ==\u0007',
  'Pq#0\u001b\\',
  'c',
  '[>1u',
])('ESC %j is no question', (sequence) => {
  const text = `a${ESC}${sequence}b`
  expect(pushed(text).shown).toEqual([text])
})

test('a string without an end is let through at last', () => {
  const sequences = createSequences()
  const chunk = Buffer.alloc(40_000, 'x')
  expect(sequences.push(Buffer.concat([Buffer.from(`${ESC}P`), chunk])).whole).toHaveLength(0)
  expect(sequences.push(chunk).whole).toHaveLength(80_002)
})

test('what is torn at the end is told at the end', () => {
  const sequences = createSequences()
  sequences.push(Buffer.from(`a${ESC}[3`))
  expect(sequences.rest().whole.toString()).toBe(`${ESC}[3`)
})
