import { createReadStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { Header, Pax } from 'tar'
import { AppError, errorText } from '../../domain/errors.ts'

export type UnpackedEntry = { name: string; mode: number; mtime: Date } & ({ link: string } | { size: number })

/** `content` is what is left unread of the entry; what nobody reads is passed over. */
export type Unpacked = { entry: UnpackedEntry; content: () => AsyncIterable<Buffer> }

const BLOCK = 512
/** Names and link targets that do not fit into a header. */
const paxMaxBytes = 64 * 1_024

export const wrong = (message: string): AppError => new AppError('invalid', `the checkpoint is refused: ${message}`)

const createReader = (source: AsyncIterable<Buffer>, maxBytes: number) => {
  const chunks = source[Symbol.asyncIterator]()
  let rest: Buffer = Buffer.alloc(0)
  let total = 0
  const more = async (): Promise<Buffer> => {
    const { done, value } = await chunks.next()
    if (done === true) throw wrong('the archive breaks off')
    total += value.length
    if (total > maxBytes) throw wrong(`unpacked it has more than ${maxBytes} bytes`)
    return value
  }
  /** At most `max` bytes, at least one. */
  const some = async (max: number): Promise<Buffer> => {
    while (rest.length === 0) rest = await more()
    const bytes = rest.subarray(0, max)
    rest = rest.subarray(bytes.length)
    return bytes
  }
  return {
    some,
    async exactly(size: number): Promise<Buffer> {
      const parts: Buffer[] = []
      for (let left = size; left > 0;) {
        const bytes = await some(left)
        parts.push(bytes)
        left -= bytes.length
      }
      return Buffer.concat(parts)
    },
  }
}

const paddingOf = (size: number): number => -size & (BLOCK - 1)

const headerOf = (block: Buffer): Header => {
  const header = new Header(block)
  if (!header.nullBlock && !header.cksumValid) throw wrong('the archive is damaged')
  return header
}

const entryOf = (header: Header, extended: Partial<Pax>): UnpackedEntry => {
  const { mode = 0, mtime = new Date(0), type } = header
  const { path = header.path ?? '', linkpath = header.linkpath ?? '', size = header.size ?? 0 } = extended
  const entry = { name: path, mode: mode & 0o777, mtime }
  if (type === 'File' || type === 'OldFile') return { ...entry, size }
  if (type === 'SymbolicLink') return { ...entry, link: linkpath }
  throw wrong(`${path} is neither a file nor a symbolic link, but ${type}`)
}

async function* entriesIn(source: AsyncIterable<Buffer>, maxBytes: number): AsyncGenerator<Unpacked> {
  const reader = createReader(source, maxBytes)
  /** Of the entry that comes. */
  let extended: Partial<Pax> = {}
  for (;;) {
    const header = headerOf(await reader.exactly(BLOCK))
    if (header.nullBlock) return
    if (header.type === 'ExtendedHeader') {
      const size = header.size ?? 0
      if (size > paxMaxBytes) throw wrong('a name in it is too long')
      extended = Pax.parse((await reader.exactly(size)).toString('utf8'))
      await reader.exactly(paddingOf(size))
      continue
    }
    const entry = entryOf(header, extended)
    extended = {}
    const size = 'size' in entry ? entry.size : 0
    let left = size
    async function* content(): AsyncGenerator<Buffer> {
      while (left > 0) {
        const bytes = await reader.some(left)
        left -= bytes.length
        yield bytes
      }
    }
    yield { entry, content }
    for await (const _ of content());
    await reader.exactly(paddingOf(size))
  }
}

/** The entries of an archive, one after the other. @throws AppError `invalid` for what is no archive, or is unpacked larger than that */
export async function* unpack(file: string, maxBytes: number): AsyncGenerator<Unpacked> {
  const unzipped = createGunzip()
  // Who reads hears of its failures.
  pipeline(createReadStream(file), unzipped).catch(() => undefined)
  try {
    yield* entriesIn(unzipped as AsyncIterable<Buffer>, maxBytes)
  } catch (error) {
    const isGzipError = Error.isError(error) && 'code' in error && /^Z_|^ERR_/.test(String(error.code))
    throw isGzipError ? wrong(errorText(error)) : error
  } finally {
    unzipped.destroy()
  }
}
