import type { Activities } from '../activities/index.ts'
import { sweeping } from './steps.ts'

/** One look of the janitor; its schedule starts it every minute. */
export async function janitor(): ReturnType<Activities['sweep']> {
  return sweeping.sweep()
}
