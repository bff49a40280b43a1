import type { Repairs } from '../activities/janitor.ts'
import { sweeping } from './steps.ts'

/** One look of the janitor; its schedule starts it every minute. */
export async function janitor(): Promise<Repairs> {
  return sweeping.sweep()
}
