import { spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import type { JournalEntry, TurnResult } from '../../domain/supervisor-protocol.ts'
import { createSupervisorClient } from '../../sandbox/supervisor-client.ts'
import { restoreCheckpoint, takeCheckpoint } from '../checkpoint.ts'
import { type LiteLlm, startLiteLlm } from '../litellm/litellm.ts'
import { type TestMcpServer, startMcpServer } from '../mcp-server.ts'
import {
  type HARNESS_DIRS,
  type JournalReader,
  MASTER_KEY,
  type TestSupervisor,
  bindRequest,
  makeRepository,
  readJournal,
  startSupervisor,
} from '../supervisor.ts'
import { processTexts } from './processes.ts'

export type Expected = {
  id: keyof typeof HARNESS_DIRS
  /** Its shell tool. */
  shell: string
  /** A line of the script that makes it ask before a file is written. */
  asking: (command: string) => string
}

const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
const MARK = 'session-secret-4711'

const saidIn = ({ reply }: TurnResult): string =>
  reply?.parts.map(({ type, text }) => (type === 'text' && typeof text === 'string' ? text : '')).join('') ?? ''
type Tool = { tool: string; state: Record<string, unknown> }
const toolsIn = ({ reply }: TurnResult): Tool[] =>
  (reply?.parts.filter(({ type }) => type === 'tool') ?? []) as unknown as Tool[]

const isSaid = (entry: JournalEntry, turnId: string): boolean =>
  entry.type === 'harness' && entry.turn_id === turnId && entry.event.type === 'message.part.delta'

/** A conversation with a real harness program, through a supervisor and a real LiteLLM proxy, from the warm pool to its end. */
export const describeConversation = ({ id, shell, asking }: Expected): void => {
  const client = createSupervisorClient({ masterKey: MASTER_KEY })
  let litellm: LiteLlm
  let mcp: TestMcpServer
  let repo_url: string
  let sandbox: TestSupervisor
  let journal: JournalReader
  let pid: number | null

  beforeAll(async () => {
    litellm = await startLiteLlm()
    mcp = await startMcpServer()
    repo_url = makeRepository({ 'README.md': 'from the repository\n' })
  }, 400_000)
  afterAll(async () => {
    journal?.[Symbol.dispose]()
    await sandbox?.[Symbol.asyncDispose]()
    await Promise.all([litellm?.[Symbol.asyncDispose](), mcp?.[Symbol.asyncDispose](), client[Symbol.asyncDispose]()])
    rmSync(repo_url.slice('file://'.length), { recursive: true, force: true })
  })

  const gateway = () => ({ url: litellm.url, key: litellm.key })
  const run = async (turn_id: string, text: string, on = sandbox, reader = journal): Promise<TurnResult> => {
    await client.startTurn(on.target, { turn_id, parts: [{ type: 'text', text }] })
    return reader.finished(turn_id)
  }
  const file = (name: string, on = sandbox): string => path.join(on.dir, 'workspace', name)
  const askedWith = (marker: string): string => {
    const found = litellm.upstream.requests.filter((request) => JSON.stringify(request.messages).includes(marker))
    const { model, messages } = found.at(-1) ?? { model: null, messages: [] }
    return JSON.stringify({ model, messages })
  }

  describe('one that was warm before it had a session', () => {
    test('is warm after a whole turn with its shell tool, and has asked no model', async () => {
      sandbox = startSupervisor({ harness: id, repo_url, env: { PLAIN: 'plain value' } })
      await sandbox.until('warm')
      expect(sandbox.output()).toMatch(/warmed up\n/)
      pid = (await client.health(sandbox.target)).harness.pid
      expect(pid).not.toBeNull()
      expect(litellm.upstream.requests).toEqual([])
    })

    test('takes prompt, model, environment, files and MCP servers at bind, in the process that was there', async () => {
      const request = bindRequest(gateway(), {
        env: { MARK, QUOTED: `it's "$HOME"` },
        prompt: 'Answer like a pirate.',
        model: 'scripted-model',
        files: [{ path: 'notes/todo.md', content_base64: Buffer.from('file of the session').toString('base64') }],
        mcp: [{ name: 'parrot', transport: 'http', url: mcp.url, headers: { Authorization: mcp.authorization } }],
      })
      const reply = await client.bind(sandbox.target, request)
      expect(await client.bind(sandbox.target, request)).toEqual(reply)
      journal = readJournal(client, sandbox.target)
      const result = await run('first', 'say ahoy')
      expect(result).toMatchObject({ status: 'done', error: null, reply: { info: { modelID: 'scripted-model' } } })
      expect(saidIn(result)).toBe('ahoy')
      expect(result.usage.output_tokens).toBeGreaterThan(0)
      const asked = askedWith('say ahoy')
      expect(asked).toContain('"model":"scripted-model"')
      expect(asked).toContain('Answer like a pirate.')
      expect((await client.health(sandbox.target)).harness).toMatchObject({ pid, restarts: 0 })
    })

    test('runs tools in the workspace, with the environment of the session', async () => {
      const command = 'echo "$MARK|$QUOTED|$PLAIN|$(cat notes/todo.md)|$(cat README.md)" > made.txt; cat made.txt'
      const result = await run('tools', `run ${command}\nsay done`)
      const [tool] = toolsIn(result)
      expect(tool).toMatchObject({ tool: shell, state: { status: 'completed', input: expect.anything() } })
      const line = `${MARK}|it's "$HOME"|plain value|file of the session|from the repository`
      expect(readFileSync(file('made.txt'), 'utf8').trim()).toBe(line)
      expect(String(tool!.state['output'])).toContain(line)
      expect(saidIn(result)).toBe('done')
    })

    test('reaches the MCP servers of the session, whose keys it does not get', async () => {
      const result = await run('mcp', 'call echo {"text":"polly"}\nsay done')
      expect(mcp.echoed).toEqual(['polly'])
      expect(JSON.stringify(toolsIn(result))).toContain('echo of polly')
      const texts = processTexts(sandbox.target.id)
      expect(texts).toContain('LAP_SANDBOX_ID')
      for (const secret of [mcp.authorization, litellm.key, sandbox.token]) {
        expect(texts).not.toContain(secret)
        // Files that vanish meanwhile are an error to it, whatever it has found.
        expect(spawnSync('grep', ['-rlaF', '--', secret, sandbox.dir], { encoding: 'utf8' }).stdout).toBe('')
      }
    })

    test('tells words as they come', async () => {
      const result = await run('stream', 'stream 5 150')
      expect(saidIn(result)).toBe('word0 word1 word2 word3 word4 ')
      const times = journal.entries.filter((entry) => isSaid(entry, 'stream')).map(({ at }) => Date.parse(at))
      expect(times.length).toBeGreaterThanOrEqual(4)
      expect(times.at(-1)! - times[0]!).toBeGreaterThan(150)
      const end = journal.entries.findIndex((entry) => entry.type === 'turn_finished' && entry.turn_id === 'stream')
      expect(end).toBeGreaterThan(journal.entries.findLastIndex((entry) => isSaid(entry, 'stream')))
    })

    test('sees a picture', async () => {
      const parts = [
        { type: 'file', mime: 'image/png', filename: 'dot.png', url: `data:image/png;base64,${PNG}` },
        { type: 'text', text: 'say seen' },
      ]
      await client.startTurn(sandbox.target, { turn_id: 'picture', parts })
      expect(saidIn(await journal.finished('picture'))).toBe('seen')
      expect(askedWith('say seen').includes(PNG)).toBe(true)
    })

    test('fails a turn in the words of a gateway that refuses, and goes on', async () => {
      const result = await run('refused', 'fail 400')
      expect(result).toMatchObject({ status: 'failed', error: { code: 'harness_error' } })
      expect(result.error!.message).toContain('as told')
      expect(saidIn(await run('after refused', 'say fine'))).toBe('fine')
    })

    test('ends an interrupted turn, its words and its tool, and goes on', async () => {
      await client.startTurn(sandbox.target, { turn_id: 'long', parts: [{ type: 'text', text: 'stream 100000 20' }] })
      await journal.until((entry) => isSaid(entry, 'long'))
      await client.interrupt(sandbox.target, 'long')
      const result = await journal.finished('long')
      expect(result.status).toBe('cancelled')
      expect(saidIn(result)).toMatch(/^word0 /)
      const command = 'tail -f /dev/null; echo woke'
      await client.startTurn(sandbox.target, {
        turn_id: 'tool',
        parts: [{ type: 'text', text: `run ${command}\nsay x` }],
      })
      await journal.until(
        (entry) =>
          entry.type === 'harness' && entry.turn_id === 'tool' && JSON.stringify(entry).includes('"status":"running"'),
      )
      await client.interrupt(sandbox.target, 'tool')
      expect((await journal.finished('tool')).status).toBe('cancelled')
      expect(saidIn(await run('after long', 'say here'))).toBe('here')
      expect((await client.health(sandbox.target)).harness).toMatchObject({ pid, restarts: 0 })
    })

    test('killed between two turns, it goes on with the conversation and its settings', async () => {
      process.kill(pid!, 'SIGKILL')
      await journal.until(({ type }) => type === 'harness_restarted')
      const result = await run('revived', 'run echo "$MARK" > again.txt\nsay back')
      expect(saidIn(result)).toBe('back')
      expect(readFileSync(file('again.txt'), 'utf8').trim()).toBe(MARK)
      const asked = askedWith('again.txt')
      expect(asked).toContain('word4 ')
      expect(asked).toContain('Answer like a pirate.')
      await run('mcp again', 'call echo {"text":"pieces of eight"}\nsay done')
      expect(mcp.echoed).toEqual(['polly', 'pieces of eight'])
    })

    test('killed in a turn, it says so, and goes on with the conversation', async () => {
      const parts = [{ type: 'text', text: 'run tail -f /dev/null; echo woke\nsay x' }]
      await client.startTurn(sandbox.target, { turn_id: 'fatal', parts })
      await journal.until(
        (entry) =>
          'turn_id' in entry && entry.turn_id === 'fatal' && JSON.stringify(entry).includes('"status":"running"'),
      )
      process.kill((await client.health(sandbox.target)).harness.pid!, 'SIGKILL')
      const result = await journal.finished('fatal')
      expect(result).toMatchObject({ status: 'failed', error: { code: 'harness_exited' } })
      expect(result.error!.message).toContain('SIGKILL')
      expect(saidIn(await run('revived again', 'say still here'))).toBe('still here')
      expect(askedWith('say still here')).toContain('word4 ')
      const thread = JSON.stringify(await client.messages(sandbox.target))
      expect(thread).toContain('ahoy')
      expect(thread).not.toContain('"status":"running"')
    })
  })

  test('one that has to ask waits for the answer: allowed it does it, denied it does not', async () => {
    await using cold = startSupervisor({ harness: id, repo_url, purpose: 'session' })
    await cold.until('booted')
    await client.bind(cold.target, bindRequest(gateway(), { permissions: { default: 'ask' } }))
    using reader = readJournal(client, cold.target)
    for (const decision of ['allow', 'deny'] as const) {
      const text = `${asking(`echo made > ${decision}.txt`)}\nsay done`
      await client.startTurn(cold.target, { turn_id: decision, parts: [{ type: 'text', text }] })
      const entry = await reader.until(
        ({ type, ...more }) => type === 'permission_asked' && 'turn_id' in more && more.turn_id === decision,
      )
      const { permission } = entry as JournalEntry & { type: 'permission_asked' }
      expect(permission.title).toContain(`${decision}.txt`)
      expect(['execute', 'edit']).toContain(permission.kind)
      expect(existsSync(file(`${decision}.txt`, cold))).toBe(false)
      await client.replyPermission(cold.target, permission.id, decision)
      await client.replyPermission(cold.target, permission.id, decision)
      const result = await reader.finished(decision)
      expect(result.status).toBe('done')
      expect(existsSync(file(`${decision}.txt`, cold))).toBe(decision === 'allow')
      expect(toolsIn(result).at(-1)!.state['status']).toBe(decision === 'allow' ? 'completed' : 'error')
    }
    // What is always allowed is asked for once; some take every call of the program for the same.
    const always = `${asking('ls README.md >> always.txt')}\nsay done`
    for (const turn_id of ['always', 'again']) {
      await client.startTurn(cold.target, { turn_id, parts: [{ type: 'text', text: always }] })
      if (turn_id === 'always') {
        const entry = await reader.until((each) => each.type === 'permission_asked' && each.turn_id === turn_id)
        const { permission } = entry as JournalEntry & { type: 'permission_asked' }
        await client.replyPermission(cold.target, permission.id, 'allow_always')
      }
      expect((await reader.finished(turn_id)).status).toBe('done')
    }
    expect(reader.entries.filter((each) => each.type === 'permission_asked' && each.turn_id === 'again')).toEqual([])
    expect(readFileSync(file('always.txt', cold), 'utf8')).toBe('README.md\nREADME.md\n')
    // One that nobody answers ends with its turn.
    await client.startTurn(cold.target, {
      turn_id: 'open',
      parts: [{ type: 'text', text: asking('echo made > open.txt') }],
    })
    await reader.until((entry) => entry.type === 'permission_asked' && entry.turn_id === 'open')
    await client.interrupt(cold.target, 'open')
    expect((await reader.finished('open')).status).toBe('cancelled')
    expect(reader.entries.findLast(({ type }) => type === 'permission_replied')).toMatchObject({
      turn_id: 'open',
      decision: 'deny',
      by: 'turn_ended',
    })
    expect(existsSync(file('open.txt', cold))).toBe(false)
  })

  test('its conversation goes on in another warm sandbox, with its files, from a checkpoint', async () => {
    const prompt = 'Answer like a parrot.'
    await using first = startSupervisor({ harness: id, repo_url, purpose: 'session' })
    await first.until('booted')
    await client.bind(first.target, bindRequest(gateway(), { prompt }))
    using before = readJournal(client, first.target)
    await run('one', `run echo made > made.txt\nsay the number is 4711`, first, before)
    const { manifest, archive } = await takeCheckpoint(first)
    expect(manifest).toMatchObject({ harness: { id }, has_conversation: true, files: 1, omitted: [] })
    const unpacked = gunzipSync(archive).toString('latin1')
    for (const secret of [litellm.key, first.token]) expect(unpacked).not.toContain(secret)
    await first[Symbol.asyncDispose]()

    await using second = startSupervisor({ harness: id, repo_url })
    await second.until('warm')
    const { pid } = (await client.health(second.target)).harness
    const checkpoint = { id: randomUUID(), since: [{ role: 'user' as const, text: 'what came after' }] }
    expect(await restoreCheckpoint(second, checkpoint.id, archive)).toMatchObject({ conversation: true, problems: [] })
    const history = [{ role: 'user' as const, text: 'the whole of it' }]
    const reply = await client.bind(second.target, bindRequest(gateway(), { prompt, history, checkpoint }))
    expect(reply).toMatchObject({
      harness_session_id: manifest.conversation,
      restored: { conversation: true, files: 1 },
    })
    using after = readJournal(client, second.target)
    expect(saidIn(await run('two', 'run cat made.txt > copy.txt\nsay back again', second, after))).toBe('back again')
    expect(readFileSync(file('copy.txt', second), 'utf8')).toBe('made\n')
    const asked = askedWith('say back again')
    for (const words of ['the number is 4711', 'what came after', prompt]) expect(asked).toContain(words)
    expect(asked).not.toContain('the whole of it')
    expect((await client.health(second.target)).harness).toMatchObject({ pid, restarts: 0 })
    const thread = JSON.stringify(await client.messages(second.target))
    expect(thread).toContain('the number is 4711')
    expect(thread).not.toContain('what came after')
    expect((await takeCheckpoint(second)).manifest).toMatchObject({ has_conversation: true, files: 2 })
  })
}
