import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { AppError } from '../../domain/errors.ts'
import type { Context } from '../http.ts'

const digest = (text: string): Buffer => createHash('sha256').update(text).digest()

/** Whether a header `Authorization` is `Bearer <MASTER_KEY>`, compared in constant time: digests have one length whatever was sent. */
export const showsMasterKey = (authorization: string, masterKey: string): boolean => {
  const [, token = ''] = /^bearer +(.*)$/i.exec(authorization) ?? []
  return timingSafeEqual(digest(token), digest(masterKey))
}

/** Whoever shows the master key, as it may be written down: another one with each key, so that what was given to it goes with the key. */
export const callerOf = (masterKey: string): string =>
  createHmac('sha256', masterKey).update('lap caller v1').digest('base64url')

export const createAuth =
  (masterKey: string): ((ctx: Context) => void) =>
  (ctx) => {
    if (!showsMasterKey(ctx.get('authorization'), masterKey))
      throw new AppError('unauthorized', 'unauthorized: send the header "Authorization: Bearer <MASTER_KEY>"')
  }
