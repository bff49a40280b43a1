import { AppError } from '../domain/errors.ts'

/** A refusal whose code says which one it is. */
export const refused = (code: string, message: string): AppError =>
  new AppError('conflict', message, { cause: { code } })
