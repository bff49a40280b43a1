import pLimit from 'p-limit'
import { sandboxByName } from '../db/sandboxes.ts'
import { errorText } from '../domain/errors.ts'
import { lostConcurrency } from '../domain/limits.ts'
import { noteFailure } from './sandbox.ts'
import type { ActivityDeps } from './deps.ts'

const note = async (deps: ActivityDeps, name: string): Promise<void> => {
  try {
    const sandbox = await sandboxByName(deps.sql, name)
    if (sandbox?.state !== 'warm' && sandbox?.state !== 'claimed') return
    const failure = await deps.driver.lossOf(name)
    await noteFailure(deps, sandbox, failure, sandbox.state === 'warm' ? 'warm' : 'session')
  } catch (error) {
    // The janitor sees it at its next look.
    deps.log.warn({ sandbox: name, reason: errorText(error) }, 'a lost sandbox could not be noted')
  }
}

/**
 * What a worker does when its driver says that a sandbox is lost: the row says so with the evidence, and the session or the pool is told. Any number of
 * workers may hear of it; one of them writes it. A sandbox that is being started has somebody who waits for it and knows better why.
 */
export const createLostHandler = (deps: ActivityDeps): ((name: string) => Promise<void>) => {
  const limit = pLimit(lostConcurrency)
  return (name) => limit(() => note(deps, name))
}
