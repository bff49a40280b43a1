import type { PageCursor } from '../db/sql.ts'
import { AppError } from '../domain/errors.ts'
import { isId } from '../domain/names.ts'

/** What `X-Next-Cursor` holds after this row. */
export const cursorOf = ({ created_at, id }: { created_at: Date; id: string }): string =>
  Buffer.from(`${created_at.toISOString()} ${id}`).toString('base64url')

/** @throws AppError `invalid` for anything but a cursor */
export const readCursor = (text: string): PageCursor => {
  const [time = '', id = ''] = Buffer.from(text, 'base64url').toString().split(' ')
  const createdAt = new Date(time)
  if (Number.isNaN(createdAt.getTime()) || !isId(id))
    throw new AppError('invalid', 'query.cursor: must be the X-Next-Cursor of a page', {
      details: [{ path: 'query.cursor', message: 'must be the X-Next-Cursor of a page' }],
    })
  return { createdAt, id }
}

export const NEXT_CURSOR = { 'X-Next-Cursor': 'Cursor of the next page; absent after the last one.' }
