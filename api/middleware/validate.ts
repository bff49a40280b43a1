import type { z } from 'zod'
import { AppError } from '../../domain/errors.ts'
import type { ErrorDetail } from '../../domain/errors.ts'

type Issue = z.core.$ZodIssue

const pathOf = (prefix: string, path: PropertyKey[]): string =>
  path.reduce<string>((text, key) => {
    if (typeof key === 'number') return `${text}[${key}]`
    return text === '' ? String(key) : `${text}.${String(key)}`
  }, prefix)

/** One detail for each thing that is wrong; unknown fields are named one by one. */
const detailsOf = (prefix: string, issue: Issue): ErrorDetail[] => {
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((key) => ({ path: pathOf(prefix, [...issue.path, key]), message: issue.message }))
  if (issue.code === 'invalid_key')
    return issue.issues.map((inner) => ({ path: pathOf(prefix, issue.path), message: inner.message }))
  return [{ path: pathOf(prefix, issue.path), message: issue.message }]
}

/**
 * @param prefix where the value came from (`query`, `header`), or '' for the body
 * @throws AppError `invalid` with every fault's path and what would be right
 */
export const validate = <S extends z.ZodType>(schema: S, value: unknown, prefix = ''): z.output<S> => {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const details = result.error.issues.flatMap((issue) => detailsOf(prefix, issue))
  const first = details[0]
  const where = first === undefined || first.path === '' ? 'the body' : first.path
  const more = details.length > 1 ? ` (and ${details.length - 1} more)` : ''
  throw new AppError('invalid', `${where}: ${first?.message ?? 'invalid'}${more}`, { details })
}
