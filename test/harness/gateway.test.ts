import { rmSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { createSupervisorClient } from '../../sandbox/supervisor-client.ts'
import { MASTER_KEY, bindRequest, makeRepository, readJournal, startSupervisor } from '../supervisor.ts'
import { startWordGateway } from '../word-gateway.ts'

const client = createSupervisorClient({ masterKey: MASTER_KEY })
let repo_url: string
beforeAll(() => void (repo_url = makeRepository()))
afterAll(async () => {
  await client[Symbol.asyncDispose]()
  rmSync(repo_url.slice('file://'.length), { recursive: true, force: true })
})

const HARNESSES = [
  { harness: 'opencode', path: '/v1/chat/completions', limit: 'max_tokens' },
  { harness: 'claude-agent-sdk', path: '/v1/messages', limit: 'max_tokens' },
  // It sets no limit to an answer.
  { harness: 'codex', path: '/v1/responses', limit: null },
  { harness: 'qwen-code', path: '/v1/chat/completions', limit: 'max_tokens' },
] as const

const ENV = { MODEL_CONTEXT_TOKENS: '64000', MODEL_OUTPUT_TOKENS: '4321' }

test.each(HARNESSES)(
  '$harness asks once a turn, for no more than the model can, and sums up a conversation that comes near the end of the context',
  async ({ harness, path, limit }) => {
    await using gateway = await startWordGateway()
    await using sandbox = startSupervisor({ harness, repo_url, purpose: 'session', env: ENV })
    await sandbox.until('booted')
    await client.bind(sandbox.target, bindRequest({ url: gateway.url, key: 'key' }, { model: 'the-model' }))
    using journal = readJournal(client, sandbox.target)
    const run = async (turn_id: string): Promise<unknown> => {
      await client.startTurn(sandbox.target, { turn_id, parts: [{ type: 'text', text: `say the ${turn_id} word` }] })
      const { status, reply } = await journal.finished(turn_id)
      return { status, said: reply?.parts.filter(({ type }) => type === 'text').map((part) => part['text']) }
    }
    for (const turn of ['first', 'second']) expect(await run(turn)).toEqual({ status: 'done', said: ['word'] })
    // Nothing in the thread of a model name that it does not know.
    expect(JSON.stringify(journal.entries)).not.toContain('Model metadata')
    expect(gateway.asked.map((request) => [request.path, request.body['model']])).toEqual([
      [path, 'the-model'],
      [path, 'the-model'],
    ])
    for (const { headers, body } of gateway.asked) {
      if (limit !== null) expect(body[limit]).toBe(Number(ENV.MODEL_OUTPUT_TOKENS))
      expect(body).not.toHaveProperty('context_management')
      expect(headers['anthropic-beta'] ?? '').not.toMatch(
        /context-management|thinking-token|tool-changes|display-updates/,
      )
    }
    // Of the turn, and of the request for the summary, which has it all in it.
    gateway.countNext([62_000, 62_000])
    expect(await run('third')).toMatchObject({ status: 'done' })
    expect(await run('fourth')).toMatchObject({ status: 'done' })
    expect(gateway.asked.length).toBeGreaterThan(4)
    expect(gateway.asked.filter(({ body }) => JSON.stringify(body).includes('say the fourth word'))).not.toEqual([])
  },
)

test('a limit that is none fails the start, and names the variable', async () => {
  await using sandbox = startSupervisor({ harness: 'codex', repo_url, env: { MODEL_CONTEXT_TOKENS: 'lots' } })
  await expect(sandbox.until('booted')).rejects.toThrow('MODEL_CONTEXT_TOKENS')
})
