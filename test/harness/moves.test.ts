import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { type Stack, startStack } from '../faults/stack.ts'
import { until } from '../until.ts'
import { hasCheckpoint, hasMoved } from '../faults/moves.ts'
import {
  createAgent, expectWholeLog, getSession, openSession, say, supervisorPid, textOf,
} from '../faults/world.ts' // prettier-ignore
import { type LiteLlm, startLiteLlm } from '../litellm/litellm.ts'

/** The real harness programs through the whole platform: their sandboxes are killed, and the next ones go on. */
let litellm: LiteLlm
let stack: Stack

beforeAll(async () => {
  litellm = await startLiteLlm()
  const gateway = { LITELLM_API_BASE: litellm.url, LITELLM_API_KEY: litellm.key }
  stack = await startStack({ env: { WARM_POOL_SIZE: '0', ...gateway } })
}, 600_000)
afterAll(async () => {
  await stack?.[Symbol.asyncDispose]()
  await litellm?.[Symbol.asyncDispose]()
}, 120_000)

/** A start of the programs takes long on a machine that does other things too. */
const PATIENCE_MS = 240_000
const sandboxOf = async (id: string): Promise<string> => (await getSession(stack, id)).task_arn ?? 'none'
const workspace = async (id: string, name: string): Promise<string> =>
  path.join(stack.sandboxDir, await sandboxOf(id), 'workspace', name)
const killSandbox = async (id: string): Promise<void> => {
  process.kill(supervisorPid(stack, await sandboxOf(id)), 'SIGKILL')
}
/** The model was asked with that in it, and each time with all that was said before: nobody asked it something of their own, such as for a title. */
const expectAskedInFull = (marker: string, before: string[]): void => {
  const asked = litellm.upstream.requests.map(({ messages }) => JSON.stringify(messages))
  const found = asked.filter((text) => text.includes(marker))
  expect(found).not.toEqual([])
  expect(found.map((text) => before.filter((word) => text.includes(word)))).toEqual(found.map(() => before))
}

describe.each(['opencode', 'claude-agent-sdk', 'codex', 'qwen-code'])('%s', (harness) => {
  let id: string
  const marked = (word: string): string => `${harness}-${word}`

  test('goes on with its conversation and its files when its sandbox is killed between two turns', async () => {
    const agent = await createAgent(stack, { harness_id: harness, model: 'scripted-model' })
    ;({ id } = await openSession(stack, agent, { wait: true }))
    const first = await say(stack, id, `run echo made > made.txt\nsay ${marked('first')}`)
    expect({ status: first.status, text: textOf(first.body) }).toEqual({ status: 200, text: marked('first') })
    await hasCheckpoint(stack, id, PATIENCE_MS)
    await killSandbox(id)
    expect((await hasMoved(stack, id, 2, PATIENCE_MS)).data).toMatchObject({
      restored: { conversation: true, problems: [] },
    })
    expect(readFileSync(await workspace(id, 'made.txt'), 'utf8').trim()).toBe('made')
    const second = await say(stack, id, `run cat made.txt > copied.txt\nsay ${marked('second')}`)
    expect({ status: second.status, text: textOf(second.body) }).toEqual({ status: 200, text: marked('second') })
    expectAskedInFull(marked('second'), [marked('first')])
    expect(readFileSync(await workspace(id, 'copied.txt'), 'utf8').trim()).toBe('made')
  }, 600_000)

  test('loses only the turn amid which its sandbox is killed', async () => {
    await hasCheckpoint(stack, id, PATIENCE_MS)
    const reply = say(stack, id, 'run echo half > half.txt\nstream 100000 20')
    await until('it has begun', 120_000, async () => existsSync(await workspace(id, 'half.txt')))
    await killSandbox(id)
    expect(await reply).toMatchObject({ status: 409, body: { code: 'turn_interrupted' } })
    expect((await hasMoved(stack, id, 3, PATIENCE_MS)).data).toMatchObject({
      restored: { conversation: true, problems: [] },
    })
    expect(existsSync(await workspace(id, 'half.txt'))).toBe(false)
    expect(readFileSync(await workspace(id, 'copied.txt'), 'utf8').trim()).toBe('made')
    const third = await say(stack, id, `say ${marked('third')}`)
    expect({ status: third.status, text: textOf(third.body) }).toEqual({ status: 200, text: marked('third') })
    expectAskedInFull(marked('second'), [marked('first')])
    expectAskedInFull(marked('third'), [marked('first'), marked('second')])
    await expectWholeLog(stack, id)
    await stack.http('DELETE', `/sessions/${id}`)
  }, 600_000)
})
