import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { type Stack, startStack } from '../faults/stack.ts'
import { createAgent, openSession, say, textOf } from '../faults/world.ts'
import { MCP_SERVER } from '../litellm/config.ts'
import { type LiteLlm, startLiteLlm } from '../litellm/litellm.ts'
import { type TestMcpServer, startMcpServer } from '../mcp-server.ts'

/** The platform with opencode, in front of a real LiteLLM proxy that has an MCP server. */
let litellm: LiteLlm
let mcp: TestMcpServer
let stack: Stack
beforeAll(async () => {
  litellm = await startLiteLlm()
  mcp = await startMcpServer(litellm.mcpPort)
  stack = await startStack({
    env: {
      WARM_POOL_SIZE: '0',
      HARNESS_PATH: path.dirname(fileURLToPath(new URL('../../harness/opencode', import.meta.url))),
      LITELLM_API_BASE: litellm.url,
      LITELLM_API_KEY: litellm.key,
    },
  })
}, 600_000)
afterAll(async () => {
  await stack?.[Symbol.asyncDispose]()
  await Promise.all([litellm?.[Symbol.asyncDispose](), mcp?.[Symbol.asyncDispose]()])
}, 120_000)

test('an agent calls the tools of its MCP servers, in another sandbox too, and one without them has none', async () => {
  const agent = (mcp_servers: string[]) =>
    createAgent(stack, { harness_id: 'opencode', model: 'scripted-model', mcp_servers })
  const call = (text: string) => `call echo ${JSON.stringify({ text })}\nsay done`
  const { id } = await openSession(stack, await agent([MCP_SERVER]), { wait: true })
  const { body } = await say(stack, id, call('polly'))
  expect(textOf(body)).toContain('done')
  expect(JSON.stringify(body.parts)).toContain('echo of polly')
  expect(mcp.echoed).toEqual(['polly'])

  expect((await stack.http('POST', `/sessions/${id}/restart`)).status).toBe(200)
  await say(stack, id, call('pieces of eight'))
  expect(mcp.echoed).toEqual(['polly', 'pieces of eight'])

  const without = await openSession(stack, await agent([]), { wait: true })
  await say(stack, without.id, call('nobody'))
  expect(mcp.echoed).toEqual(['polly', 'pieces of eight'])
}, 300_000)
