import path from 'node:path'
import type { McpServer } from '../../domain/mcp.ts'
import { allowsAll } from '../../domain/permission.ts'
import type { HarnessContext, HarnessManifest, SessionSettings } from '../../supervisor/harness.ts'
import { GATEWAY_KEY, codexConfiguration } from '../codex/configuration.ts'

/** Strings of JSON are strings of TOML, but for one character. */
const text = (value: string): string => JSON.stringify(value).replaceAll('\u007f', String.raw`\u007f`)

const table = (values: Record<string, string>): string =>
  `{ ${Object.entries(values)
    .map(([name, value]) => `${text(name)} = ${text(value)}`)
    .join(', ')} }`

const serverOf = (server: McpServer): string =>
  [
    `[mcp_servers.${text(server.name)}]`,
    ...(server.transport === 'http'
      ? [`url = ${text(server.url)}`, `http_headers = ${table(server.headers ?? {})}`]
      : [
          `command = ${text(server.command)}`,
          `args = [${(server.args ?? []).map(text).join(', ')}]`,
          `env = ${table(server.env ?? {})}`,
        ]),
  ].join('\n')

const configurationOf = (context: HarnessContext, { system, mcp, permissions }: SessionSettings): string => {
  const free = allowsAll(permissions)
  return codexConfiguration(context, {
    approval: free ? 'never' : 'on-request',
    sandbox: free ? 'danger-full-access' : 'read-only',
    more: system === null ? [] : [`developer_instructions = ${text(system)}`],
    tables: [
      // By itself it fetches a program that it would talk to, and waits for it.
      '[features]\ndaemon_auto_start = false',
      `[projects.${text(context.workspace)}]\ntrust_level = "trusted"`,
      ...mcp.map(serverOf),
    ],
  })
}

const manifest: HarnessManifest = {
  id: 'codex-terminal',
  name: 'Codex (terminal)',
  supportsTui: true,
  terminal: (context, settings) => ({
    command: [process.execPath, path.join(context.dir, '../codex/node_modules/@openai/codex/bin/codex.js')],
    env: { CODEX_HOME: path.join(context.home, '.codex'), [GATEWAY_KEY]: context.gateway.key },
    files: { '.codex/config.toml': configurationOf(context, settings) },
  }),
}
export default manifest
