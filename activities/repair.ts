import pLimit from 'p-limit'
import { errorText } from '../domain/errors.ts'
import { janitorConcurrency } from '../domain/limits.ts'
import type { ActivityDeps } from './deps.ts'

export const isOld = (date: Date, ms: number): boolean => Date.now() - date.getTime() > ms

/** One look: what it has put right so far, and what it could not. */
export type Look = { deps: ActivityDeps; errors: number }

/** Does one thing after the other; what fails is logged, and keeps nothing else from being put right. @returns how many were */
export const repair = async <T>(
  look: Look,
  items: T[],
  work: { of: (item: T) => string; do: (item: T) => Promise<boolean> },
) => {
  const limit = pLimit(janitorConcurrency)
  const repaired = await Promise.all(
    items.map((item) =>
      limit(async () => {
        try {
          return await work.do(item)
        } catch (error) {
          look.errors++
          look.deps.log.warn(
            { subject: work.of(item), reason: errorText(error) },
            'the janitor could not put this right',
          )
          return false
        }
      }),
    ),
  )
  return repaired.filter(Boolean).length
}
