import { createHash } from 'node:crypto'
import { mkdtemp, open, rm } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Archive } from '../domain/checkpoint.ts'
import { AppError } from '../domain/errors.ts'

/** A file that has no name any more, so that nothing is left of it, however its process ends. */
const openNameless = async () => {
  const dir = await mkdtemp(path.join(tmpdir(), 'lap-archive-'))
  try {
    return await open(path.join(dir, 'archive'), 'wx+', 0o600)
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

const pieceBytes = 64 * 1_024

/** Not a stream of the file: that would keep it from being closed for as long as nobody reads it to its end. */
async function* piecesOf(file: FileHandle): AsyncGenerator<Uint8Array> {
  for (let at = 0; ;) {
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(pieceBytes), 0, pieceBytes, at)
    if (bytesRead === 0) return
    at += bytesRead
    yield buffer.subarray(0, bytesRead)
  }
}

/**
 * Keeps an archive on disk between where it comes from and where it goes to: either may have to be asked twice, and it is never in memory as a whole.
 * @throws AppError `too_large`
 */
export const holdArchive = async (
  source: AsyncIterable<Uint8Array>,
  maxBytes: number,
): Promise<Archive & AsyncDisposable> => {
  const file = await openNameless()
  const hash = createHash('sha256')
  let bytes = 0
  try {
    for await (const piece of source) {
      bytes += piece.length
      if (bytes > maxBytes) throw new AppError('too_large', `an archive of more than ${maxBytes} bytes`)
      hash.update(piece)
      await file.writeFile(piece)
    }
  } catch (error) {
    await file.close()
    throw error
  }
  return {
    bytes,
    sha256: hash.digest('hex'),
    read: () => piecesOf(file),
    [Symbol.asyncDispose]: () => file.close(),
  }
}
