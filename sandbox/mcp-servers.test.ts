import { expect, test } from '@jest/globals'
import { mcpServersOf } from './mcp-servers.ts'

const gateway = { apiBase: 'https://gateway.example.com/litellm', apiKey: 'sk-1' }
const at = (name: string, path: string) => ({
  name,
  transport: 'http',
  url: `https://gateway.example.com/litellm/mcp/${path}`,
  headers: { 'x-litellm-api-key': 'Bearer sk-1' },
})

test('an MCP server is reached at the gateway by the id, name or alias that the agent has', () => {
  expect(mcpServersOf(['github', 'b7c5'], gateway)).toEqual([at('github', 'github'), at('b7c5', 'b7c5')])
  expect(mcpServersOf([], gateway)).toEqual([])
})

test('the names are those of tools, and no two are the same', () => {
  const long = 'a'.repeat(40)
  expect(mcpServersOf(['my tools', 'my/tools', 'my tools', long], gateway)).toEqual([
    at('my_tools', 'my%20tools'),
    at('my_tools_2', 'my%2Ftools'),
    at('a'.repeat(32), long),
  ])
})
