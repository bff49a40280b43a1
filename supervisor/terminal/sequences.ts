/**
 * Cuts what a program writes to its terminal where nothing is torn: behind whole characters and whole escape sequences. So a screen may be handed over to a
 * viewer between any two pieces, and goes on there. Questions to the terminal are for the one screen in here, which answers them; were they shown to viewers
 * as well, each would answer, and the program would take the second answer for keys.
 *
 * https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
 */
export type Piece = { /** As written. */ whole: Buffer; /** Without questions. */ shown: Buffer }

export type Sequences = {
  push(bytes: Buffer): Piece
  /** What is torn and will not be completed any more. */
  rest(): Piece
}

const ESC = 0x1b
const BEL = 0x07
const CAN = 0x18
const SUB = 0x1a

/** A string, such as a picture, that is longer is let through in pieces: memory has an end. */
const heldBytesMax = 64 * 1024
const csiBytesMax = 256

const QUESTION = new RegExp(
  [
    '\\[[>=]?0?c', // what are you
    '\\[\\??[56]n|\\[\\?\\d+(?:;\\d+)*n', // how are you, where is the cursor
    '\\[\\??\\d+\\$p', // is a mode set
    '\\[>0?q', // your version
    '\\[\\?u', // keyboard
    '\\[(?:1[13-9]|2[01])(?:;\\d+)*t', // size of the window
    '\\[[01]?x',
    '\\][\\d;]*;\\?(?:\\u0007|\\u001b\\\\)', // colours
    '\\]52;\\w*;\\?(?:\\u0007|\\u001b\\\\)', // clipboard
    'P[$+]q[^]*', // settings, capabilities
    'Z',
  ]
    .map((each) => `^\\u001b${each.includes('|') ? `(?:${each})` : each}$`)
    .join('|'),
)

const endOfCsi = (bytes: Buffer, from: number): number | null => {
  for (let at = from; at < bytes.length; at++) {
    const byte = bytes[at]!
    if (byte >= 0x40 && byte <= 0x7e) return at + 1
    // Broken off by what is no part of one; a terminal goes on behind it.
    if (byte === ESC) return at
    if (byte === CAN || byte === SUB || byte > 0x7e || at - from > csiBytesMax) return at + 1
  }
  return null
}

const endOfString = (bytes: Buffer, from: number): number | null => {
  for (let at = from; at < bytes.length; at++) {
    const byte = bytes[at]!
    if (byte === BEL || byte === CAN || byte === SUB) return at + 1
    if (byte !== ESC) continue
    if (at + 1 === bytes.length) return null
    return bytes[at + 1] === 0x5c ? at + 2 : at
  }
  return null
}

/** @param at of an ESC @returns the index behind its sequence, or null while that is not whole */
const endOfSequence = (bytes: Buffer, at: number): number | null => {
  const kind = bytes[at + 1]
  if (kind === undefined) return null
  if (kind === 0x5b) return endOfCsi(bytes, at + 2)
  // OSC, DCS, SOS, PM, APC
  if ([0x5d, 0x50, 0x58, 0x5e, 0x5f].includes(kind)) return endOfString(bytes, at + 2)
  for (let end = at + 1; end < bytes.length; end++) {
    const byte = bytes[end]!
    if (byte < 0x20 || byte > 0x2f) return byte === ESC ? end : end + 1
  }
  return null
}

const lengthOfCharacter = (lead: number): number => {
  if (lead < 0xc2 || lead > 0xf4) return 1
  return lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2
}

/** @returns the index behind the last whole character of UTF-8 */
const endOfText = (bytes: Buffer, from: number): number => {
  for (let at = bytes.length - 1; at >= from && at >= bytes.length - 3; at--) {
    const byte = bytes[at]!
    if (byte < 0x80) break
    if (byte >= 0xc0) return at + lengthOfCharacter(byte) > bytes.length ? at : bytes.length
  }
  return bytes.length
}

/** @returns how much of it is whole, and where questions are in that */
const cut = (bytes: Buffer): { end: number; questions: [number, number][] } => {
  const questions: [number, number][] = []
  let after = 0
  for (let at = bytes.indexOf(ESC); at >= 0; at = bytes.indexOf(ESC, after)) {
    const end = endOfSequence(bytes, at)
    if (end === null) return { end: at, questions }
    if (QUESTION.test(bytes.toString('latin1', at, Math.min(end, at + csiBytesMax)))) questions.push([at, end])
    after = end
  }
  return { end: endOfText(bytes, after), questions }
}

const without = (bytes: Buffer, gaps: [number, number][]): Buffer => {
  if (gaps.length === 0) return bytes
  const starts = [0, ...gaps.map(([, end]) => end)]
  const ends = [...gaps.map(([start]) => start), bytes.length]
  return Buffer.concat(starts.map((start, i) => bytes.subarray(start, ends[i])))
}

export const createSequences = (): Sequences => {
  let held = Buffer.alloc(0)
  const take = (bytes: Buffer, end: number, questions: [number, number][]): Piece => {
    const whole = bytes.subarray(0, end)
    // A copy: what is held is small, and the piece that it came in may be large.
    held = Buffer.from(bytes.subarray(end))
    return { whole, shown: without(whole, questions) }
  }
  return {
    push(bytes) {
      const all = held.length === 0 ? bytes : Buffer.concat([held, bytes])
      const { end, questions } = cut(all)
      return take(all, all.length - end > heldBytesMax ? all.length : end, questions)
    },
    rest: () => take(held, held.length, []),
  }
}
