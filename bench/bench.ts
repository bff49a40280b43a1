import { setTimeout as sleep } from 'node:timers/promises'
import { Pool } from 'pg'
import { type Client, type Session, until } from './client.ts'
import type { Processes, Servers } from './platform.ts'
import type { Figure } from './stats.ts'

/** Harnesses that hold a conversation, and the one of almost no size. */
export const CONVERSATIONAL = ['opencode', 'claude-agent-sdk', 'codex', 'qwen-code'] as const
/** Harnesses that are typed into. */
export const TERMINALS = ['claude-code', 'codex-terminal'] as const
export type TerminalId = (typeof TERMINALS)[number]
export type HarnessId = 'light' | (typeof CONVERSATIONAL)[number] | TerminalId

/** What a scenario works with. What is measured is measured over HTTP; SQL only reads times that Postgres noted, and whether all is quiet. */
export type Bench = {
  servers: Servers
  /** Fewer samples, smaller pools. */
  quick: boolean
  /** `many`, or `few` in a quick run. */
  count(many: number, few: number): number
  say(text: string): void
  sql<T extends object>(text: string, params?: unknown[]): Promise<T[]>
  /** The platform with one agent of that harness and a full pool of that size, all of it quiet. */
  withPool(harness: HarnessId, size: number): Promise<Ready>
}

export type Ready = {
  agentId: string
  /** The API that most scenarios ask; `apis` has the other one too. */
  client: Client
  apis: [Client, Client]
  apiPids: Processes['apiPids']
  memory: Processes['memory']
  /** Waits until the pool is full again and nothing starts, ends or waits to be sent. */
  quiet(): Promise<void>
  /** A session that must come from the pool. @throws Error when it did not */
  open(client?: Client): Promise<Session>
}

export type Scenario = {
  name: string
  /** One line: what is measured. */
  about: string
  run(bench: Bench): Promise<Figure[]>
}

/** Long enough for 100 sandboxes, two at a time, on a small machine. */
const FILL_TIMEOUT_MS = 10 * 60_000
/** After the last sandbox has moved: what is left to do (removal of folders, garbage) should not fall into the next sample. */
const REST_MS = 150

type Current = { harness: HarnessId; size: number; processes: Processes; agentId: string }

const MOVING = `
  select count(*) filter (where state = 'warm' and not retiring)::int warm,
    count(*) filter (where state in ('provisioning', 'ending', 'failed'))::int moving,
    (select count(*) from outbox)::int unsent
  from sandbox`

/** @throws Error when the session is not ready, or did not come from the pool */
export const assertWarm = (session: Session): Session => {
  if (session.status === 'ready' && session.spawn_mode === 'warm') return session
  throw new Error(`expected a warm session, got ${session.status} ${session.spawn_mode}: ${session.claim_outcome}`)
}

/** Starts the platform's processes on demand, with the settings that a scenario needs. */
export const createBench = (
  servers: Servers,
  options: { quick: boolean; say: (text: string) => void },
): Bench & AsyncDisposable => {
  const { quick, say } = options
  const pool = new Pool({ connectionString: servers.postgres.url, max: 2 })
  pool.on('error', () => undefined)
  let current: Current | null = null
  /** The latest processes, also while they start: an interruption ends those too. */
  let latest: Promise<Processes> | null = null

  const sql: Bench['sql'] = async <T extends object>(text: string, params: unknown[] = []) =>
    (await pool.query<T>(text, params)).rows

  const settled = async (size: number): Promise<void> => {
    await until(`${size} warm sandboxes and nothing else going on`, FILL_TIMEOUT_MS, async () => {
      const [now] = await sql<{ warm: number; moving: number; unsent: number }>(MOVING)
      return now?.warm === size && now.moving === 0 && now.unsent === 0
    })
    await sleep(REST_MS)
  }

  const restart = async (size: number): Promise<Processes> => {
    await current?.processes.stop()
    latest = servers.start({ WARM_POOL_SIZE: String(size) })
    return latest
  }

  const prepare = async (harness: HarnessId, size: number): Promise<Current> => {
    if (current !== null && current.harness !== harness) {
      await current.processes.apis[0].call('DELETE', `/agents/${current.agentId}`)
      await settled(0)
    }
    const processes = current?.size === size ? current.processes : await restart(size)
    const client = processes.apis[0]
    const agentId =
      current?.harness === harness
        ? current.agentId
        : await client.agent({ name: `bench ${harness}`, model: 'bench', harness_id: harness })
    current = { harness, size, processes, agentId }
    // Only an agent that is used has a pool.
    const first = await client.session(agentId, '?wait=ready')
    await client.end(first.id)
    return current
  }

  return {
    servers,
    quick,
    say,
    sql,
    count: (many, few) => (quick ? few : many),
    async withPool(harness, size) {
      const isNew = current?.harness !== harness || current.size !== size
      const { processes, agentId } = current !== null && !isNew ? current : await prepare(harness, size)
      if (isNew) say(`pool of ${size} × ${harness}`)
      await settled(size)
      const client = processes.apis[0]
      return {
        agentId,
        client,
        apis: processes.apis,
        apiPids: processes.apiPids,
        memory: processes.memory,
        quiet: () => settled(size),
        open: async (by = client) => assertWarm(await by.session(agentId)),
      }
    },
    [Symbol.asyncDispose]: async () => {
      const processes = await latest?.catch(() => null)
      await processes?.stop()
      await pool.end()
    },
  }
}
