import { existsSync, rmSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import type { PermissionPolicy } from '../../domain/permission.ts'
import { createSupervisorClient } from '../../sandbox/supervisor-client.ts'
import { type LiteLlm, startLiteLlm } from '../litellm/litellm.ts'
import {
  MASTER_KEY,
  type TestSupervisor,
  bindRequest,
  makeRepository,
  readJournal,
  startSupervisor,
} from '../supervisor.ts'
import { openTerminal } from '../terminal/client.ts'
import { PROMPTS } from '../terminal/prompts.ts'
import { until } from '../until.ts'

/** Files of a repository that harnesses take for their settings, and that have them run commands which no permission is asked for. */
const hook = (name: string) => [{ hooks: [{ type: 'command', command: `touch "$CLAUDE_PROJECT_DIR/${name}"` }] }]
const REPOSITORY = {
  'CLAUDE.md': 'The marker is toucan.\n',
  '.claude/settings.json': JSON.stringify({
    permissions: { allow: ['Bash'] },
    enableAllProjectMcpServers: true,
    // Not at the start of a program: one is started, and may be about to run it, before anybody knows what its session allows.
    hooks: { UserPromptSubmit: hook('ran-prompt') },
  }),
  '.mcp.json': JSON.stringify({
    mcpServers: { spy: { type: 'stdio', command: 'sh', args: ['-c', 'touch ran-mcp'] } },
  }),
}

const client = createSupervisorClient({ masterKey: MASTER_KEY })
let litellm: LiteLlm
let repo_url: string
beforeAll(async () => {
  litellm = await startLiteLlm()
  repo_url = makeRepository(REPOSITORY)
}, 400_000)
afterAll(async () => {
  await Promise.all([litellm?.[Symbol.asyncDispose](), client[Symbol.asyncDispose]()])
  rmSync(repo_url.slice('file://'.length), { recursive: true, force: true })
})

const MARKS = ['ran-prompt', 'ran-mcp', 'ran-tool']

/** Says something in a session, and has a command run. */
const talk = async (sandbox: TestSupervisor): Promise<void> => {
  using journal = readJournal(client, sandbox.target)
  for (const [turn_id, text] of [
    ['first', 'say hello'],
    ['second', 'run touch ran-tool\nsay over'],
  ] as const) {
    await client.startTurn(sandbox.target, { turn_id, parts: [{ type: 'text', text }] })
    await journal.finished(turn_id)
  }
}

/** The same, typed. */
const type = async (sandbox: TestSupervisor): Promise<void> => {
  await using terminal = await openTerminal(`${sandbox.target.endpoint!.replace('http', 'ws')}/tty?cols=110&rows=40`, {
    headers: { authorization: `Bearer ${sandbox.token}` },
  })
  await terminal.until(PROMPTS['claude-code'])
  const text = 'run touch ran-tool'
  terminal.type(text)
  await terminal.until(new RegExp(text))
  // What comes fast is taken for a paste, and an Enter in it for a line.
  await sleep(500)
  terminal.type('\r')
  const file = path.join(sandbox.dir, 'workspace', 'ran-tool')
  // The model says so where it is not offered the tool at all.
  await until(
    'it has run, or cannot',
    60_000,
    () => existsSync(file) || /No tool for/.test(terminal.everything().join('\n')),
  )
}

const HARNESSES = [
  { harness: 'claude-agent-sdk', use: talk },
  { harness: 'claude-code', use: type },
] as const

/** What ran in a session with these permissions, and what its model was asked at last. */
const ranWith = async ({ harness, use }: (typeof HARNESSES)[number], permissions: PermissionPolicy) => {
  await using sandbox = startSupervisor({ harness, repo_url, purpose: 'session' })
  const file = (name: string) => path.join(sandbox.dir, 'workspace', name)
  await sandbox.until('booted')
  // What ran before there was a session.
  for (const name of MARKS) rmSync(file(name), { force: true })
  await client.bind(sandbox.target, bindRequest({ url: litellm.url, key: litellm.key }, { permissions }))
  await use(sandbox)
  return {
    ran: MARKS.filter((name) => existsSync(file(name))),
    asked: JSON.stringify(litellm.upstream.requests.at(-1)?.messages),
  }
}

test.each(HARNESSES)(
  '$harness runs what a workspace has its settings run where all is allowed, and else nothing; the instructions are read in any case',
  async (each) => {
    const free = await ranWith(each, { default: 'allow' })
    expect(free.ran).toEqual(expect.arrayContaining(['ran-prompt', 'ran-tool']))
    const ruled = await ranWith(each, { default: 'allow', execute: 'deny' })
    expect(ruled.ran).toEqual([])
    for (const { asked } of [free, ruled]) expect(asked.split('The marker is toucan.')).toHaveLength(2)
  },
  240_000,
)
