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
/** Of what it leads, the half from U+0080 on is one-character control codes, the rest letters. */
const C1_LEAD = 0xc2
/** Ends a string, behind an ESC. */
const ST = 0x5c
const CAN = 0x18
const SUB = 0x1a

/** A string, such as a picture, that is longer is let through in pieces: memory has an end. */
const heldBytesMax = 64 * 1024
const csiBytesMax = 256
/** Questions are shorter: the longest asks for the 256 colours at once. */
const questionBytesMax = 4 * 1024

/** How strings end: BEL, or ST in two characters or in one. */
const END = '(?:\\u0007|\\u001b\\\\|\\u00c2\\u009c)'

const QUESTION = new RegExp(
  [
    '\\[[>=]?0?c', // what are you
    '\\[\\??[56]n|\\[\\?\\d+(?:;\\d+)*n', // how are you, where is the cursor
    '\\[\\??\\d+\\$p', // is a mode set
    '\\[>0?q', // your version
    '\\[\\?u', // keyboard
    '\\[(?:1[13-9]|2[01])(?:;\\d+)*t', // size of the window
    '\\[[01]?x',
    '\\[\\?\\d*m', // how keys are told of
    '\\[\\?[\\d;]+S', // what pictures may be
    `\\](?:[45]|1\\d);(?:[^]*;)?\\?(?:;[^]*|${END})`, // colours; also one of several, the others of which are set
    '\\]21;[^]*=\\?[^]*', // colours, as kitty asks
    `\\]52;\\w*;\\?${END}`, // clipboard
    '_G(?:[^;]*,)?a=q[^]*', // can pictures be shown
    'P[$+]q[^]*', // settings, capabilities
    'Z',
  ]
    .map((each) => `^${each.includes('|') ? `(?:${each})` : each}$`)
    .join('|'),
)

/**
 * Sequences begin with an ESC and a character, or, in what is UTF-8, with one character of U+0080 to U+009F, which is two bytes as well. A byte of 0x80 to 0x9f
 * that is no part of a character is none.
 * @returns the character behind the ESC, or that in the place of which the other stands; null where nothing begins; undefined while nobody knows
 */
const introducedBy = (bytes: Buffer, at: number): number | null | undefined => {
  const [first, second] = [bytes[at], bytes[at + 1]]
  if (first === ESC) return second
  if (first !== C1_LEAD) return null
  if (second === undefined) return undefined
  return second >= 0x80 && second <= 0x9f ? second - 0x40 : null
}

const endOfCsi = (bytes: Buffer, from: number): number | null => {
  for (let at = from; at < bytes.length; at++) {
    const byte = bytes[at]!
    if (byte >= 0x40 && byte <= 0x7e) return at + 1
    // Broken off by what is no part of one; a terminal goes on behind it.
    if (byte === ESC || byte > 0x7e) return at
    if (byte === CAN || byte === SUB || at - from > csiBytesMax) return at + 1
  }
  return null
}

const endOfString = (bytes: Buffer, from: number): number | null => {
  for (let at = from; at < bytes.length; at++) {
    const byte = bytes[at]!
    if (byte === BEL || byte === CAN || byte === SUB) return at + 1
    const kind = introducedBy(bytes, at)
    if (kind === undefined) return null
    if (kind !== null) return kind === ST ? at + 2 : at
  }
  return null
}

/** @param at of what begins it @returns the index behind its sequence, or null while that is not whole */
const endOfSequence = (bytes: Buffer, at: number): number | null => {
  const kind = introducedBy(bytes, at)
  if (kind == null) return null
  if (kind === 0x5b) return endOfCsi(bytes, at + 2)
  // OSC, DCS, SOS, PM, APC
  if ([0x5d, 0x50, 0x58, 0x5e, 0x5f].includes(kind)) return endOfString(bytes, at + 2)
  if (bytes[at] !== ESC) return at + 2
  for (let end = at + 1; end < bytes.length; end++) {
    const byte = bytes[end]!
    if (byte < 0x20 || byte > 0x2f) return byte === ESC ? end : end + 1
  }
  return null
}

/** @returns where the next sequence begins, or -1 */
const nextSequence = (bytes: Buffer, from: number): number => {
  const escape = bytes.indexOf(ESC, from)
  const before = escape < 0 ? bytes : bytes.subarray(0, escape)
  // One that is torn is held back as any character is.
  for (let at = before.indexOf(C1_LEAD, from); at >= 0; at = before.indexOf(C1_LEAD, at + 1))
    if (introducedBy(bytes, at) != null) return at
  return escape
}

const isQuestion = (bytes: Buffer, at: number, end: number): boolean => {
  const kind = introducedBy(bytes, at)
  if (kind == null) return false
  return QUESTION.test(
    String.fromCharCode(kind) + bytes.toString('latin1', at + 2, Math.min(end, at + questionBytesMax)),
  )
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
  for (let at = nextSequence(bytes, 0); at >= 0; at = nextSequence(bytes, after)) {
    const end = endOfSequence(bytes, at)
    if (end === null) return { end: at, questions }
    if (isQuestion(bytes, at, end)) questions.push([at, end])
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
