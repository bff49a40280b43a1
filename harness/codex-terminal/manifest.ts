import path from 'node:path'
import type { McpServer } from '../../domain/mcp.ts'
import { allowsAll } from '../../domain/permission.ts'
import type { HarnessContext, HarnessManifest, SessionSettings } from '../../supervisor/harness.ts'
import { GATEWAY_KEY, codexConfiguration, instructionsOf, tomlText, trustTable } from '../codex/configuration.ts'

const table = (values: Record<string, string>): string =>
  `{ ${Object.entries(values)
    .map(([name, value]) => `${tomlText(name)} = ${tomlText(value)}`)
    .join(', ')} }`

const serverOf = (server: McpServer): string =>
  [
    `[mcp_servers.${tomlText(server.name)}]`,
    ...(server.transport === 'http'
      ? [`url = ${tomlText(server.url)}`, `http_headers = ${table(server.headers ?? {})}`]
      : [
          `command = ${tomlText(server.command)}`,
          `args = [${(server.args ?? []).map(tomlText).join(', ')}]`,
          `env = ${table(server.env ?? {})}`,
        ]),
  ].join('\n')

const configurationOf = (context: HarnessContext, { system, mcp, permissions }: SessionSettings): string => {
  const free = allowsAll(permissions)
  return codexConfiguration(context, {
    approval: free ? 'never' : 'on-request',
    sandbox: free ? 'danger-full-access' : 'read-only',
    more: system === null ? [] : [`developer_instructions = ${tomlText(system)}`],
    tables: [
      // By itself it fetches a program that it would talk to, and waits for it.
      '[features]\ndaemon_auto_start = false',
      trustTable(context, free ? 'trusted' : 'untrusted'),
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
    files: {
      '.codex/config.toml': configurationOf(context, settings),
      ...(allowsAll(settings.permissions) ? {} : instructionsOf(context)),
    },
  }),
}
export default manifest
