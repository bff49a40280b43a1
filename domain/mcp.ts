/** A server of tools for a session: https://modelcontextprotocol.io. `http`: its streamable transport. */
export type McpServer =
  | { name: string; transport: 'http'; url: string; headers?: Record<string, string> }
  | { name: string; transport: 'stdio'; command: string; args?: string[]; env?: Record<string, string> }
