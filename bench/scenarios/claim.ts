import { randomUUID } from 'node:crypto'
import { claimForSession, createSession, type NewSession } from '../../db/claims.ts'
import { createDatabase, type Database, migrate } from '../../db/database.ts'
import { insertAgent } from '../../db/agents.ts'
import { ALLOW_ALL } from '../../domain/permission.ts'
import type { Bench, Scenario } from '../bench.ts'
import { atOnce, elapsed, type Figure, inTurn } from '../stats.ts'

/** Rows of earlier sandboxes and sessions, so that the tables are as large as those of a platform in use. */
const HISTORY = 20_000
const CALLERS = 8
/** Most sessions that live at once. */
const LIVE = 200
const TEMPLATE = 'bench'

const claim = { templateHash: TEMPLATE, poolSize: 1, recentAgentHours: 24 }

const newSession = (agentId: string): NewSession => ({
  id: randomUUID(),
  agentId,
  title: 'bench',
  request: { env_vars: {} },
  model: 'bench',
  prompt: null,
  idempotencyKey: null,
  bodyHash: null,
  idleTimeoutMs: 1_800_000,
  maxAgeMs: 86_400_000,
  initialTurn: null,
  origin: null,
  createdBy: 'bench',
  permissions: ALLOW_ALL,
  limits: { max_turns: null, max_cost_usd: null },
  claim,
})

const addAgent = async ({ sql }: Database): Promise<string> => {
  const agent = await insertAgent(sql, {
    id: randomUUID(),
    name: 'bench',
    model: 'bench',
    prompt: null,
    tools: [],
    harness_id: 'light',
    harness_image: 'light',
    repo_url: null,
    branch: 'main',
    setup_cmd: null,
    pfp_url: null,
    mcp_servers: [],
    env_vars: {},
    env_var_hosts: {},
    allow_out: [],
    deny_out: [],
    resources: null,
    permissions: ALLOW_ALL,
    max_turns: null,
    max_cost_usd: null,
    projects: [],
    preload_memory_limit: 0,
    template_hash: TEMPLATE,
    created_by: 'bench',
  })
  return agent.id
}

const addSandboxes = (
  { sql }: Database,
  { agentId, count, state }: { agentId: string; count: number; state: 'warm' | 'gone' },
): Promise<unknown> =>
  sql.query(
    `insert into sandbox (id, agent_id, template_hash, purpose, state, epoch, name, driver, harness_id, image, endpoint, created_at, ready_at, retiring)
     select gen_random_uuid(), $1, $2, 'pool', $3, 0, 'bench-' || gen_random_uuid(), 'local', 'light', 'light', 'http://127.0.0.1:1', now(), now(), false
     from generate_series(1, $4::int)`,
    [agentId, TEMPLATE, state, count],
  )

/** Ended sessions, made from one by copying it. */
const addHistory = async (db: Database, agentId: string): Promise<void> => {
  await addSandboxes(db, { agentId, count: HISTORY, state: 'gone' })
  const { session } = await createSession(db.sql, newSession(agentId))
  await db.sql.query("update session set status = 'dead', ended_at = now() where id = $1", [session.id])
  await db.sql.query(
    `insert into session select (jsonb_populate_record(s, jsonb_build_object('id', gen_random_uuid()))).*
     from session s, generate_series(1, $2::int) where s.id = $1`,
    [session.id, HISTORY],
  )
  await db.sql.query('vacuum analyze')
}

/** A session that had no luck, as the workflow finds it. */
const addMissed = async (db: Database, agentId: string): Promise<string> =>
  (await createSession(db.sql, { ...newSession(agentId), claim: { ...claim, poolSize: 0 } })).session.id

const run = async (bench: Bench): Promise<Figure[]> => {
  const name = `claim_${Date.now()}`
  await bench.sql(`create database ${name}`)
  await using db = await createDatabase({
    url: `${bench.servers.postgres.serverUrl}/${name}`,
    applicationName: 'bench',
    poolMax: CALLERS,
  })
  await migrate(db)
  const agentId = await addAgent(db)
  await addHistory(db, agentId)

  const [warmUp, count] = [bench.count(200, 20), bench.count(1_000, 100)]
  await addSandboxes(db, { agentId, count: warmUp * 2 + count * 2 + LIVE * 4, state: 'warm' })
  await db.sql.query('vacuum analyze')
  const create = async (): Promise<void> => {
    const made = await createSession(db.sql, newSession(agentId))
    if (made.existing || made.sandbox === null) throw new Error('a claim missed')
  }
  /** Their number is looked at by every create, so it stays that of a platform in use. */
  const endAll = (): Promise<unknown> =>
    db.sql.query("update session set status = 'dead', ended_at = now() where status = 'creating'")
  const roundTrip = await inTurn(count, () => elapsed(() => db.sql.query('select 1')))
  await inTurn(warmUp, create)
  await endAll()
  const one = await inTurn(count, async (i) => {
    if (i % LIVE === 0) await endAll()
    return elapsed(create)
  })
  await endAll()

  const again: number[] = []
  for (let done = 0; done < warmUp + count; done += LIVE) {
    const missed = await inTurn(LIVE, () => addMissed(db, agentId))
    again.push(...(await inTurn(LIVE, (i) => elapsed(() => claimForSession(db.sql, missed[i] ?? '', claim)))))
    await endAll()
  }

  const begin = performance.now()
  const many = await atOnce(CALLERS, () => inTurn(Math.ceil(LIVE / CALLERS), () => elapsed(create)))
  const perSecond = many.flat().length / ((performance.now() - begin) / 1_000)
  return [
    { name: 'SQL round trip (select 1)', samples: roundTrip },
    { name: 'claim: one statement with session, events, outbox', samples: one, reach: { p50: 1, p99: 10 } },
    { name: 'claim for an existing session, one transaction', samples: again.slice(warmUp) },
    { name: `claim, ${CALLERS} callers at once`, samples: many.flat() },
    { name: `claims, ${CALLERS} callers at once`, unit: 'per second', samples: [perSecond] },
  ]
}

export const claimAlone: Scenario = {
  name: 'claim',
  about: 'the statement that hands over a sandbox, without HTTP',
  run,
}
