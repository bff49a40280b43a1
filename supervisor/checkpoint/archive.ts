import { constants, createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { Header, Pax } from 'tar'
import { checkpointUnpackedMaxBytes } from '../../domain/limits.ts'

/** `mode`: the permissions alone. */
export type ArchiveEntry = { name: string; mode: number; mtime: Date } & (
  | { link: string }
  | { bytes: Buffer }
  | { file: string; size: number }
)

/** A file is shorter than it was a moment ago, or cannot be read. Nothing of it, or of what was added with it, is in the archive. */
export class EntryLost extends Error {
  override name = 'EntryLost'
}

/**
 * A tar, written to a file as it grows. What is added at once is compressed on its own (a gzip file may have any number of members), so that what turns
 * out too large is cut off again.
 */
export type Archive = AsyncDisposable & {
  /** Unpacked bytes of its files so far. */
  unpacked(): number
  /** @returns false when the archive would grow beyond its limit: then nothing of them is in it @throws EntryLost */
  add(entries: ArchiveEntry[]): Promise<boolean>
  end(): Promise<void>
}

const BLOCK = 512
/** More would cost processor time of the harness' machine for little. */
const level = 4
/** Of the end. */
const reserveBytes = 64

const sizeOf = (entry: ArchiveEntry): number =>
  'size' in entry ? entry.size : 'bytes' in entry ? entry.bytes.length : 0

/** Of an entry beside its content, at most: headers and padding, and a name that needs a header of its own. */
const besideMaxOf = (entry: ArchiveEntry): number =>
  5 * BLOCK + Buffer.byteLength(entry.name) + ('link' in entry ? Buffer.byteLength(entry.link) : 0)

const headOf = (entry: ArchiveEntry): Buffer[] => {
  const fields = {
    path: entry.name,
    mode: entry.mode,
    size: sizeOf(entry),
    mtime: new Date(Math.floor(entry.mtime.getTime() / 1_000) * 1_000),
    type: 'link' in entry ? ('SymbolicLink' as const) : ('File' as const),
    ...('link' in entry ? { linkpath: entry.link } : {}),
  }
  const header = new Header(fields)
  const needsPax = header.encode()
  return [...(needsPax ? [new Pax(fields).encode()] : []), header.block!]
}

async function* contentOf(entry: ArchiveEntry): AsyncGenerator<Buffer> {
  if ('bytes' in entry) yield entry.bytes
  if (!('file' in entry) || entry.size === 0) return
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW
  let left = entry.size
  try {
    const stream = createReadStream(entry.file, { flags: flags as unknown as string, end: entry.size - 1 })
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      left -= chunk.length
      yield chunk
    }
  } catch (error) {
    throw new EntryLost(entry.name, { cause: error })
  }
  if (left > 0) throw new EntryLost(entry.name)
}

async function* bytesOf(entries: ArchiveEntry[]): AsyncGenerator<Buffer> {
  for (const entry of entries) {
    yield* headOf(entry)
    yield* contentOf(entry)
    const padding = -sizeOf(entry) & (BLOCK - 1)
    if (padding > 0) yield Buffer.alloc(padding)
  }
}

class Full extends Error {}

export const createArchive = async (
  file: string,
  { maxBytes, signal }: { maxBytes: number; signal: AbortSignal },
): Promise<Archive> => {
  const handle = await open(file, 'wx', 0o600)
  let end = 0
  let unpacked = 0
  /** Unpacked, with all that is not content, at most. */
  let total = 2 * BLOCK
  const member = async (source: AsyncIterable<Buffer>, max: number): Promise<void> => {
    let at = end
    await pipeline(
      source,
      createGzip({ level }),
      async (packed: AsyncIterable<Buffer>) => {
        for await (const bytes of packed) {
          if (at + bytes.length > max) throw new Full()
          for (let done = 0; done < bytes.length;) {
            const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, at + done)
            done += bytesWritten
          }
          at += bytes.length
        }
      },
      { signal },
    )
    end = at
  }
  return {
    unpacked: () => unpacked,
    async add(entries) {
      const content = entries.reduce((sum, entry) => sum + sizeOf(entry), 0)
      const more = content + entries.reduce((sum, entry) => sum + besideMaxOf(entry), 0)
      if (total + more > checkpointUnpackedMaxBytes) return false
      try {
        await member(bytesOf(entries), maxBytes - reserveBytes)
      } catch (error) {
        await handle.truncate(end)
        if (error instanceof Full) return false
        throw error
      }
      unpacked += content
      total += more
      return true
    },
    async end() {
      async function* zeros(): AsyncGenerator<Buffer> {
        yield Buffer.alloc(2 * BLOCK)
      }
      try {
        await member(zeros(), maxBytes)
      } finally {
        await handle.close()
      }
    },
    /** Also one that was given up before its end. */
    [Symbol.asyncDispose]: () => handle.close(),
  }
}
