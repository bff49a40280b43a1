import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { AppError } from '../domain/errors.ts'

/** Files of a session come base64 in one body, so it may be a third larger than what the platform takes. */
const bodyMaxBytes = 64 * 1024 * 1024

/** @throws AppError `too_large` */
export const readBody = (request: IncomingMessage): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let size = 0
    request.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size <= bodyMaxBytes) chunks.push(chunk)
      else {
        // The rest is read and dropped: nobody sees an answer over a connection that breaks while it is being written to.
        chunks.length = 0
        reject(new AppError('too_large', `a body may have at most ${bodyMaxBytes} bytes`))
      }
    })
    request.once('end', () => resolve(Buffer.concat(chunks)))
    request.once('error', reject)
    request.once('close', () => reject(new AppError('bad_request', 'the body broke off')))
  })

export const sha256 = (text: string): Buffer => createHash('sha256').update(text).digest()

/** Compares in constant time, whatever the lengths. */
export const sameSecret = (given: string | undefined, expected: string): boolean =>
  timingSafeEqual(sha256(given ?? ''), sha256(expected))

/** The bearer token of a request, if it is the one of this hash. Compares in constant time, whatever the lengths. */
export const tokenOf = (request: IncomingMessage, tokenSha256: Buffer): string | null => {
  const [, token = ''] = /^Bearer (.+)$/.exec(request.headers.authorization ?? '') ?? []
  return timingSafeEqual(sha256(token), tokenSha256) && token !== '' ? token : null
}

/** Writes, and waits when the reader is slow; resolves also when it has gone. */
export const writeSlowly = async (response: ServerResponse, bytes: string | Buffer): Promise<void> => {
  if (response.write(bytes) || response.destroyed) return
  await new Promise<void>((resolve) => {
    const done = (): void => {
      response.off('drain', done).off('close', done)
      resolve()
    }
    response.on('drain', done).on('close', done)
  })
}
