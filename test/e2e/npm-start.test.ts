import { access, readdir, readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { Client } from 'pg'
import { createDemoGateway } from '../../demo/gateway.ts'
import { freePort } from '../../tools/dev/ports.ts'
import { testTemporalAddress, uniqueTaskQueue } from '../temporal.ts'
import {
  type Clone,
  clone,
  type Ending,
  npmStart,
  paste,
  processesOf,
  READY,
  runningIn,
  type Terminal,
  textOf,
} from './npm-start.ts'

const MINUTE_MS = 60_000

let fresh: Clone
beforeAll(async () => {
  fresh = await clone()
}, MINUTE_MS)
afterAll(async () => fresh?.[Symbol.asyncDispose](), MINUTE_MS)

/** A call of the API of a started platform. */
const call = async <T>(terminal: Terminal, route: string, body?: object): Promise<T> => {
  const response = await fetch(`${terminal.shown('API')}/api/v1/${route}`, {
    method: body === undefined ? 'GET' : 'POST',
    headers: { authorization: `Bearer ${terminal.shown('Key')}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  if (!response.ok) throw new Error(`${route} answered ${response.status}: ${text}`)
  return JSON.parse(text)
}

type Session = {
  id: string
  agent_id: string
  status: string
  spawn_mode: string
  title: string | null
  attempt: number
}
const session = (terminal: Terminal, id: string): Promise<Session> => call(terminal, `managed_agents/sessions/${id}`)

const until = async (what: string, isSo: () => Promise<boolean>): Promise<void> => {
  for (const deadline = Date.now() + 2 * MINUTE_MS; !(await isSo()); await sleep(250))
    if (Date.now() > deadline) throw new Error(`not within 2 minutes: ${what}`)
}

const warmSandboxes = async (terminal: Terminal): Promise<number> =>
  (await call<{ warm_pool: { counts: { warm: number } } }>(terminal, 'admin/stats')).warm_pool.counts.warm

/** Whether npm's shell ends with its command's code or by the same Ctrl-C depends on the shell; nothing may run on behind the prompt. */
const expectCleanEnd = ({ code, signal, left }: Ending): void => {
  expect(code ?? signal).toEqual(code === null ? 'SIGINT' : 0)
  expect(left).toEqual([])
}

const isThere = (file: string): Promise<boolean> =>
  access(file).then(
    () => true,
    () => false,
  )

describe('npm start on a fresh clone', () => {
  let terminal: Terminal
  let key: string
  let agentId: string
  /** Ids of the sessions, the first one cold, the second one warm. */
  let [cold, warm] = ['', '']

  test(
    'names everything that is wrong with the settings, and starts nothing',
    async () => {
      const wrong = npmStart(fresh, {
        PORT: 'http',
        MASTER_KEY: 'short',
        WARM_POOL_SIZE: '-1',
        DATABASE_URL: 'mysql://x',
      })
      expect(await wrong.ended).toMatchObject({ code: 1 })
      const output = wrong.output()
      expect(output).toContain('4 settings are wrong')
      for (const name of ['PORT', 'MASTER_KEY', 'WARM_POOL_SIZE', 'DATABASE_URL'])
        expect(output).toMatch(new RegExp(`^ {2}${name} must .+\\n {6}for example ${name}=.+$`, 'm'))
      expect(output).not.toContain('short\n')
      expect(await isThere(fresh.dataDir)).toBe(false)
    },
    9 * MINUTE_MS,
  )

  test(
    'shows what it installs and starts, then where it is, the key and three commands',
    async () => {
      terminal = npmStart(fresh)
      await terminal.prints(READY)
      const output = terminal.output()
      for (const part of ['Postgres', 'Temporal server', 'Migrations', 'API', 'Worker'])
        expect(output).toMatch(new RegExp(`^ {2}${part} +\\d+\\.\\d s`, 'm'))
      expect(terminal.shown('Temporal UI')).toMatch(/^http:\/\/localhost:\d+$/)
      expect((await fetch(terminal.shown('Temporal UI'))).ok).toBe(true)
      expect((await fetch(terminal.shown('OpenAPI'))).ok).toBe(true)
      expect((await fetch(`${terminal.shown('API')}/readyz`)).status).toBe(200)
      expect(terminal.shown('Model')).toContain('DEMO')
      key = terminal.shown('Key')
      expect(key).toMatch(/^lap-[0-9a-f]{24}$/)
      for (const file of ['secrets.json', 'running.json'])
        expect((await stat(path.join(fresh.dataDir, file))).mode & 0o777).toBe(0o600)
    },
    9 * MINUTE_MS,
  )

  test(
    'the commands work as printed: an agent, a session, and what its shell said',
    async () => {
      const ids = 'echo; echo "$AGENT $SESSION"'
      const lines = (await paste([...terminal.commands(), ids])).split('\n')
      const [agent = '', first = ''] = lines.pop()?.split(' ') ?? []
      expect(textOf(lines.join('\n'))).toContain('Say hello')
      expect(await session(terminal, first)).toMatchObject({
        agent_id: agent,
        status: 'ready',
        spawn_mode: 'cold',
        title: 'hello',
      })
      ;[agentId, cold] = [agent, first]
    },
    3 * MINUTE_MS,
  )

  test(
    'the same command again is served from the warm pool',
    async () => {
      await until('a sandbox is warm', async () => (await warmSandboxes(terminal)) > 0)
      const [, create, say] = terminal.commands()
      const lines = (await paste([`AGENT=${agentId}`, create, say, 'echo; echo $SESSION'])).split('\n')
      warm = lines.pop() ?? ''
      expect(textOf(lines.join('\n'))).toContain('Say hello')
      expect(await session(terminal, warm)).toMatchObject({ status: 'ready', spawn_mode: 'warm' })
    },
    3 * MINUTE_MS,
  )

  test(
    'what the README says to paste works',
    async () => {
      const readme = await readFile(path.join(fresh.dir, 'README.md'), 'utf8')
      const section = readme.slice(readme.indexOf('## The first session'), readme.indexOf('## With a real model'))
      const [first = '', more = ''] = [...section.matchAll(/```sh\n(.+?)```/gs)].map(([, block]) =>
        (block ?? '')
          .replace('http://localhost:3000', terminal.shown('API'))
          .replace('<the key that npm start printed>', key)
          // Ends after what there is by then.
          .replace('curl -N ', 'curl -s --max-time 2 '),
      )
      expect(textOf(await paste([first]))).toContain('Say hello')
      const setUp = first.slice(0, first.indexOf('\n') + 1)
      const output = await paste([setUp, `SESSION=${warm}`, more])
      expect(output).toContain('"type":"turn.finished"')
      expect(JSON.parse(output.slice(output.lastIndexOf('\n{') + 1))).toMatchObject({
        detected_issues: expect.any(Array),
      })
    },
    3 * MINUTE_MS,
  )

  test(
    'a second start says that one runs, which, and where',
    async () => {
      const second = npmStart(fresh)
      expect(await second.ended).toMatchObject({ code: 1 })
      const { pid, url } = await runningIn(fresh.dataDir)
      expect(url).toBe(terminal.shown('API'))
      expect(second.output()).toContain(`LAP runs already in ${fresh.dataDir}: process ${pid}, ${url}`)
      expect(await session(terminal, warm)).toMatchObject({ status: 'ready' })
    },
    MINUTE_MS,
  )

  test(
    'a part that dies is started again',
    async () => {
      const api = processesOf(fresh).find(({ command }) => command.includes('bin/api.ts'))
      process.kill(api?.pid ?? 0, 'SIGKILL')
      await until(
        'the API answers again',
        async () => terminal.output().includes('api runs again') && (await session(terminal, warm)).status === 'ready',
      )
      expect(terminal.output()).toContain('api has ended unexpectedly')
    },
    3 * MINUTE_MS,
  )

  test(
    'Ctrl-C ends everything, in order, and leaves no process',
    async () => {
      const startedAt = Date.now()
      expectCleanEnd(await terminal.ctrlC())
      expect(Date.now() - startedAt).toBeLessThan(40_000)
      expect(processesOf(fresh)).toEqual([])
      const ends = [...terminal.output().matchAll(/^ {2}(.+?) +\d+\.\d s {3}ended$/gm)].map(([, what]) => what)
      expect(ends).toEqual(['API', 'Worker', 'Sandboxes', 'Temporal server', 'Postgres'])
      expect(await isThere(path.join(fresh.dataDir, 'running.json'))).toBe(false)
      const sandboxes = await readdir(path.join(fresh.dataDir, 'sandboxes'))
      expect(sandboxes.filter((name) => !name.startsWith('.'))).toEqual([])
    },
    2 * MINUTE_MS,
  )

  test(
    'the next start goes on with the same key, agents, sessions and conversations',
    async () => {
      terminal = npmStart(fresh)
      await terminal.prints(READY)
      expect(terminal.output()).not.toContain('Installing')
      expect(terminal.shown('Key')).toBe(key)
      const agents = await call<{ data: { id: string }[] }>(terminal, 'managed_agents/agents')
      expect(agents.data.map(({ id }) => id)).toContain(agentId)
      const sessions = await call<Session[]>(terminal, 'managed_agents/sessions')
      expect(sessions.map(({ id, status }) => [id, status])).toEqual(
        expect.arrayContaining([
          [warm, 'ready'],
          [cold, 'ready'],
        ]),
      )
      // Their sandboxes ended with the last start: each gets a new one, with its conversation.
      await until('the sessions have new sandboxes', async () =>
        (await Promise.all([cold, warm].map((id) => session(terminal, id)))).every(({ attempt }) => attempt === 2),
      )
      const [, , say] = terminal.commands()
      expect(textOf(await paste([`SESSION=${cold}`, say]))).toContain('Say hello')
    },
    5 * MINUTE_MS,
  )

  test(
    'after a start that was killed (-9) the next one ends what it left, and works',
    async () => {
      const { pid } = await runningIn(fresh.dataDir)
      process.kill(pid, 'SIGKILL')
      await terminal.ended
      expect(
        processesOf(fresh)
          .map(({ command }) => command)
          .join('\n'),
      ).toContain('bin/api.ts')
      terminal = npmStart(fresh)
      await terminal.prints(READY)
      expect(terminal.output()).toMatch(/Ended what an earlier start had left: .*worker.*Postgres/)
      for (const part of ['bin/api.ts', 'bin/worker.ts', 'start-dev'])
        expect(processesOf(fresh).filter(({ command }) => command.includes(part))).toHaveLength(1)
      const [, , say] = terminal.commands()
      expect(textOf(await paste([`SESSION=${warm}`, say]))).toContain('Say hello')
      // Sandboxes are not parts of the start that was killed: the session has kept its own.
      expect(await session(terminal, warm)).toMatchObject({ status: 'ready', attempt: 2 })
      expectCleanEnd(await terminal.ctrlC())
      expect(processesOf(fresh)).toEqual([])
    },
    6 * MINUTE_MS,
  )

  test(
    'Ctrl-C while it starts leaves no process either',
    async () => {
      terminal = npmStart(fresh)
      await terminal.prints('Migrations')
      expectCleanEnd(await terminal.ctrlC())
      expect(terminal.output()).not.toContain('AGENT=')
      expect(processesOf(fresh)).toEqual([])
    },
    2 * MINUTE_MS,
  )
})

/** One question to a database. */
const query = async <T extends object>(url: string, text: string): Promise<T[]> => {
  const client = new Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  try {
    return (await client.query<T>(text)).rows
  } finally {
    await client.end()
  }
}

test(
  'npm start uses the servers that it is given instead of its own, and calls nothing a demo',
  async () => {
    const serverUrl = process.env['TEST_DATABASE_URL'] ?? ''
    const database = uniqueTaskQueue().replace('-', '_')
    await using cleanup = new AsyncDisposableStack()
    await query(serverUrl, `create database ${database}`)
    cleanup.defer(() => query(serverUrl, `drop database ${database} with (force)`).then(() => {}))
    const databaseUrl = new URL(serverUrl)
    databaseUrl.pathname = `/${database}`
    const gateway = await createDemoGateway({ port: await freePort(), host: '127.0.0.1', key: 'sk-own' })
    cleanup.defer(() => gateway.close())
    const dataDir = `${fresh.dataDir}-own`
    const settings = {
      DATABASE_URL: databaseUrl.href,
      TEMPORAL_ADDRESS: testTemporalAddress(),
      TEMPORAL_NAMESPACE: uniqueTaskQueue(),
      LITELLM_API_BASE: gateway.url,
      LITELLM_API_KEY: 'sk-own',
      MASTER_KEY: 'a-key-of-my-own',
      WARM_POOL_SIZE: '0',
    }
    const terminal = npmStart({ ...fresh, dataDir }, settings)
    await terminal.prints(READY)
    expect(terminal.output()).not.toMatch(/^ {2}(Postgres|Temporal server|Temporal UI) /m)
    expect(terminal.output()).not.toContain('DEMO')
    expect(terminal.shown('Key')).toBe(settings.MASTER_KEY)
    const [agent, create, say] = terminal.commands()
    // One that the gateway names.
    expect(agent).toContain('"model":"demo"')
    expect(textOf(await paste([agent, create, say]))).toContain('What is in this repository?')
    expect(await query(databaseUrl.href, 'select status from session')).toEqual([{ status: 'ready' }])
    const files = await readdir(dataDir)
    expect(files.filter((file) => /postgres|temporal/.test(file))).toEqual([])
    expectCleanEnd(await terminal.ctrlC())
    expect(processesOf(fresh)).toEqual([])
  },
  6 * MINUTE_MS,
)
