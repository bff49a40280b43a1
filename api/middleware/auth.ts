import { createHash, timingSafeEqual } from 'node:crypto'
import { AppError } from '../../domain/errors.ts'
import type { Context } from '../http.ts'

const digest = (text: string): Buffer => createHash('sha256').update(text).digest()

/** `Authorization: Bearer <MASTER_KEY>`, compared in constant time: digests have one length whatever was sent. */
export const createAuth = (masterKey: string): ((ctx: Context) => void) => {
  const expected = digest(masterKey)
  return (ctx) => {
    const [, token = ''] = /^bearer +(.*)$/i.exec(ctx.get('authorization')) ?? []
    if (!timingSafeEqual(digest(token), expected))
      throw new AppError('unauthorized', 'unauthorized: send the header "Authorization: Bearer <MASTER_KEY>"')
  }
}
