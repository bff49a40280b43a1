import { afterAll, beforeAll } from '@jest/globals'
import { type Options, type Stack, startStack } from './stack.ts'

/** Both servers, every process and a full pool, on a machine on which everything else goes on. */
const START_MS = 240_000
const END_MS = 120_000

/**
 * A platform of its own for the tests of a file: started before the first of them, ended after the last.
 * @param options with `pool`: the size of the warm pool, of which there is none by itself
 * @param prepare gives it to the tests, and makes what they find in it
 */
export const withStack = (
  { pool = 0, ...options }: Options & { pool?: number },
  prepare: (stack: Stack) => Promise<void> | void,
): void => {
  let stack: Stack | undefined
  beforeAll(async () => {
    stack = await startStack({ ...options, env: { WARM_POOL_SIZE: String(pool), ...options.env } })
    await prepare(stack)
  }, START_MS)
  afterAll(async () => stack?.[Symbol.asyncDispose](), END_MS)
}
