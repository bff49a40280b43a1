import type { SessionView } from '../activities/session.ts'
import { marking } from './steps.ts'

/** Tells the place where a sandbox lives that it is in use now. Nobody waits for it: it keeps no message from being answered. */
export const createMarks = () => {
  let marked: string | null = null
  return {
    start(sandbox: SessionView['sandbox']): void {
      if (sandbox === null || !sandbox.toMark || sandbox.id === marked) return
      marked = sandbox.id
      // What could not be marked is seen by the janitor.
      marking.markSandbox(sandbox.id).catch(() => {})
    },
  }
}
