import type { McpServer } from '../domain/mcp.ts'

/** Tools have it in their names, which have at most 64 characters with some models. */
const nameMax = 32

/** As harnesses may call them. */
const namesOf = (ids: string[]): string[] => {
  const taken = new Set<string>()
  return ids.map((id) => {
    const plain = id.replaceAll(/[^a-zA-Z0-9_-]/g, '_').slice(0, nameMax)
    let name = plain
    for (let n = 2; taken.has(name); n++) name = `${plain}_${n}`
    taken.add(name)
    return name
  })
}

/**
 * The MCP servers of an agent, at the gateway, which lets whoever has its key through to them. LiteLLM knows each by id, name and alias, so nobody has to be asked for
 * their addresses: https://docs.litellm.ai/docs/mcp_config_reference
 */
export const mcpServersOf = (ids: string[], { apiBase, apiKey }: { apiBase: string; apiKey: string }): McpServer[] => {
  const known = [...new Set(ids)]
  const names = namesOf(known)
  return known.map((id, i) => ({
    name: names[i]!,
    transport: 'http',
    url: `${apiBase}/mcp/${encodeURIComponent(id)}`,
    // Not `Authorization`, which it may pass on to the server.
    headers: { 'x-litellm-api-key': `Bearer ${apiKey}` },
  }))
}
