import { type Proxy, startProxy } from './proxy.ts'
import type { Stack } from './stack.ts'
import { until } from '../until.ts'
import { sandboxesOf, supervisorPid, type Turn, turnsOf } from './world.ts'

/** Moments of a turn that many tests wait for, and what they do to it then. */

export const streaming = (stack: Stack, marker: string, words = 5): Promise<true> =>
  until(`the model streams ${marker}`, 30_000, () => (stack.model.askedFor(marker)[0]?.sent ?? 0) >= words || null)

/** Nothing of a session runs or waits any more. @returns its turns */
export const turnsOver = (stack: Stack, sessionId: string): Promise<Turn[]> =>
  until('every turn is over', 90_000, async () => {
    const turns = await turnsOf(stack, sessionId)
    return turns.every(({ status }) => status !== 'running' && status !== 'queued') ? turns : null
  })

/** From now on whoever looks for the sandbox of a session reaches it only where the proxy lets them. Whoever follows a turn of it already has another way. */
export const behindProxy = async (stack: Stack, sessionId: string): Promise<Proxy & { undo(): Promise<void> }> => {
  const [sandbox] = await sandboxesOf(stack, sessionId)
  const proxy = await startProxy(Number(new URL(sandbox?.endpoint ?? '').port))
  const point = (endpoint: string | null | undefined) =>
    stack.sql('update sandbox set endpoint = $2 where id = $1', [sandbox?.id, endpoint])
  await point(`http://127.0.0.1:${proxy.port}`)
  return Object.assign(proxy, { undo: async () => void (await point(sandbox?.endpoint)) })
}

/** Sends a signal to the supervisor of the sandbox that a session has. */
export const signalSandbox = async (stack: Stack, sessionId: string, signal: NodeJS.Signals): Promise<void> => {
  const sandbox = (await sandboxesOf(stack, sessionId)).at(-1)
  process.kill(supervisorPid(stack, sandbox?.name ?? ''), signal)
}
