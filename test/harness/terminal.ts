import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { createSupervisorClient } from '../../sandbox/supervisor-client.ts'
import { type LiteLlm, startLiteLlm } from '../litellm/litellm.ts'
import { type TestMcpServer, startMcpServer } from '../mcp-server.ts'
import { MASTER_KEY, type TestSupervisor, bindRequest, makeRepository, startSupervisor } from '../supervisor.ts'
import { type TerminalClient, openTerminal } from '../terminal/client.ts'
import { PROMPTS, awaitPrompt } from '../terminal/prompts.ts'
import { processTexts } from './processes.ts'

export type Expected = {
  id: keyof typeof PROMPTS
  /** A line of the script that makes it ask before a command is run. */
  asking: (command: string) => string
  /** What it then shows, and what is pressed to allow it. */
  question: RegExp
}

const MARK = 'session-secret-4711'

/** A real program of a terminal, typed into by a real client, in front of a real LiteLLM proxy. */
export const describeTerminal = ({ id, asking, question }: Expected): void => {
  const prompt = PROMPTS[id]
  const client = createSupervisorClient({ masterKey: MASTER_KEY })
  let litellm: LiteLlm
  let mcp: TestMcpServer
  let repo_url: string
  let sandbox: TestSupervisor

  beforeAll(async () => {
    litellm = await startLiteLlm()
    mcp = await startMcpServer()
    repo_url = makeRepository({ 'README.md': 'from the repository\n' })
  }, 400_000)
  afterAll(async () => {
    await sandbox?.[Symbol.asyncDispose]()
    await Promise.all([litellm?.[Symbol.asyncDispose](), mcp?.[Symbol.asyncDispose](), client[Symbol.asyncDispose]()])
    rmSync(repo_url.slice('file://'.length), { recursive: true, force: true })
  })

  const gateway = () => ({ url: litellm.url, key: litellm.key })
  const open = (on = sandbox): Promise<TerminalClient> =>
    openTerminal(`${on.target.endpoint!.replace('http', 'ws')}/tty?cols=110&rows=40`, {
      headers: { authorization: `Bearer ${on.token}` },
    })
  /** As somebody types: the words, and when they are there, Enter. */
  const say = async (terminal: TerminalClient, words: string): Promise<void> => {
    terminal.type(words)
    const start = words.slice(0, 30).replaceAll(/[^\w ]/g, '.')
    await terminal.until(new RegExp(start))
    // One that takes what comes fast for a paste takes an Enter in it for a line.
    await sleep(500)
    terminal.type('\r')
  }
  const file = (name: string, on = sandbox): string => path.join(on.dir, 'workspace', name)
  /** Resolves with what a file holds as soon as it holds something; `nudge` is done every second until then. */
  const made = async (name: string, { on = sandbox, nudge = (): void => undefined } = {}): Promise<string> => {
    for (const end = Date.now() + 90_000; Date.now() < end; nudge()) {
      for (let looks = 0; looks < 20; looks++, await sleep(50)) {
        const text = existsSync(file(name, on)) ? readFileSync(file(name, on), 'utf8').trim() : ''
        if (text !== '') return text
      }
    }
    throw new Error(`nothing in ${name}`)
  }
  const askedWith = (marker: string): string =>
    JSON.stringify(litellm.upstream.requests.filter((request) => JSON.stringify(request.messages).includes(marker)))

  test('warm, it has been through a turn, waits with its prompt on the screen, and has asked no model', async () => {
    sandbox = startSupervisor({ harness: id, repo_url, env: { PLAIN: 'plain value' } })
    await sandbox.until('warm')
    expect(sandbox.output()).toMatch(/warmed up\n/)
    expect(litellm.upstream.requests).toEqual([])
  })

  test('a session without settings of its own gets the program that is there, with its prompt', async () => {
    const { pid } = (await client.health(sandbox.target)).harness
    await client.bind(sandbox.target, bindRequest(gateway(), { env: { MARK } }))
    expect((await client.health(sandbox.target)).harness.pid).toBe(pid)
    await using terminal = await open()
    await terminal.until(prompt)
  })

  test('what is typed reaches the model, and its answer is on the screen', async () => {
    await using terminal = await open()
    await terminal.until(prompt)
    await say(terminal, 'say ahoy from the model')
    await terminal.until(/^\W*ahoy from the model/m)
    expect(askedWith('say ahoy')).toContain('"model":"scripted-model"')
    const used = async () => (await client.health(sandbox.target)).usage_outside_turns
    // An answer tells it at its end, behind its words.
    for (let looks = 0; looks < 200 && ((await used())?.cost_usd ?? 0) === 0; looks++) await sleep(50)
    const { requests = 0, input_tokens = 0, output_tokens = 0, cost_usd = null } = (await used()) ?? {}
    expect(Math.min(requests, input_tokens, output_tokens, cost_usd ?? 0)).toBeGreaterThan(0)
  })

  test('its tools work in the workspace, with the environment of the session', async () => {
    await using terminal = await open()
    await say(terminal, 'run echo "$MARK|$PLAIN|$(cat README.md)" > made.txt')
    expect(await made('made.txt')).toBe(`${MARK}|plain value|from the repository`)
    await terminal.until(prompt)
  })

  test('whoever comes back sees the same screen', async () => {
    await using first = await open()
    await first.until(/ahoy from the model/)
    await using second = await open()
    await second.until(/ahoy from the model/)
    // One that counts seconds is seen by both a moment apart.
    for (let looks = 0; looks < 200 && !isDeepStrictEqual(second.screen(), first.screen()); looks++) await sleep(50)
    expect(second.screen()).toEqual(first.screen())
    expect(second.isAlternate()).toBe(first.isAlternate())
  })

  test('no secret of the platform is near it', () => {
    const texts = processTexts(sandbox.target.id)
    expect(texts).toContain('LAP_SANDBOX_ID')
    for (const secret of [litellm.key, sandbox.token]) {
      expect(texts).not.toContain(secret)
      // Files that vanish meanwhile are an error to it, whatever it has found.
      expect(spawnSync('grep', ['-rlaF', '--', secret, sandbox.dir], { encoding: 'utf8' }).stdout).toBe('')
    }
  })

  test('prompt, MCP servers and permissions of a session it is told at its start; what it has to ask it asks on the screen', async () => {
    await using own = startSupervisor({ harness: id, repo_url, purpose: 'session' })
    await own.until('booted')
    const request = bindRequest(gateway(), {
      prompt: 'Answer like a pirate.',
      permissions: { default: 'ask' },
      mcp: [{ name: 'parrot', transport: 'http', url: mcp.url, headers: { Authorization: mcp.authorization } }],
    })
    await client.bind(own.target, request)
    await using terminal = await open(own)
    await awaitPrompt(terminal, id, { isRuled: true })
    await say(terminal, asking('echo made > asked.txt'))
    await terminal.until(question)
    expect(existsSync(file('asked.txt', own))).toBe(false)
    const asked = askedWith('asked.txt')
    expect(asked).toContain('Answer like a pirate.')
    expect(asked).toContain('echo')
    // An Enter that comes right after the question is not taken for an answer.
    const nudge = (): void => terminal.type('\r')
    const text = await made('asked.txt', { on: own, nudge }).catch((error: unknown) => {
      throw new Error(`${String(error)}:\n${terminal.screen().join('\n')}`)
    })
    expect(text).toBe('made')
  })
}
