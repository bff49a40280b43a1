import { Writable } from 'node:stream'
import { afterEach, describe, expect, test } from '@jest/globals'
import { streamOpened } from './events/http.ts'
import { ledgerChecked } from './events/ledger.ts'
import { claimed } from './events/pool.ts'
import { sandboxFailed, sandboxWarm } from './events/sandboxes.ts'
import { sessionCreated, sessionEnded, sessionFailed, sessionReady } from './events/sessions.ts'
import { turnFinished } from './events/turns.ts'
import { webhookAttempted, webhookDisabled } from './events/webhooks.ts'
import { createLogger } from './log.ts'
import { createMetrics } from './metrics.ts'
import { type MetricsServer, startMetricsServer } from './metrics-server.ts'

type Line = Record<string, unknown> & { event?: string; level: string; msg: string }

const capture = (level = 'debug') => {
  const lines: Line[] = []
  const destination = new Writable({
    write(chunk: Buffer, _encoding, done) {
      for (const text of chunk.toString().split('\n').filter(Boolean)) {
        const line: Line = JSON.parse(text)
        lines.push(line)
      }
      done()
    },
  })
  const log = createLogger({ level, name: 'test', destination })
  return { lines, telemetry: { log, metrics: createMetrics() } }
}

const servers: MetricsServer[] = []
afterEach(async () => {
  for (const server of servers.splice(0)) await server[Symbol.asyncDispose]()
})
const serve = async (metrics: ReturnType<typeof createMetrics>): Promise<string> => {
  const server = await startMetricsServer({ port: 0, host: '127.0.0.1', metrics })
  servers.push(server)
  return `http://127.0.0.1:${server.port}`
}

const ids = { session_id: 's1', agent_id: 'a1' }

describe('a log line', () => {
  test('is JSON with time, level name, process name and the ids of its child logger', () => {
    const { lines, telemetry } = capture()
    telemetry.log.child({ request_id: 'r1' }).info({ session_id: 's1' }, 'hello')
    expect(lines[0]).toMatchObject({ level: 'info', name: 'test', request_id: 'r1', session_id: 's1', msg: 'hello' })
    expect(lines[0]?.['time']).toMatch(/^\d{4}-\d\d-\d\dT/)
  })

  test('shows no secret, at whatever of the first three depths it stands', () => {
    const { lines, telemetry } = capture()
    const secret = 'sk-do-not-show'
    telemetry.log.info({
      token: secret,
      headers: { authorization: `Bearer ${secret}`, cookie: secret },
      request: { headers: { authorization: secret }, env: { A: secret } },
      config: { masterKey: secret, litellm: { apiKey: secret }, databaseUrl: secret },
    })
    const text = JSON.stringify(lines)
    expect(text).not.toContain(secret)
    expect(text).toContain('[hidden]')
  })

  test('shows no password of a URL in an error', () => {
    const { lines, telemetry } = capture()
    telemetry.log.error({ err: new Error('cannot reach postgresql://lap:hunter2@db/lap') })
    expect(JSON.stringify(lines)).not.toContain('hunter2')
    expect(JSON.stringify(lines)).toContain('postgresql://[hidden]@db/lap')
  })

  test('below the level is not written', () => {
    const { lines, telemetry } = capture('warn')
    telemetry.log.info('quiet')
    expect(lines).toEqual([])
  })
})

describe('a business event', () => {
  test('of a webhook is one line and its counts', async () => {
    const { lines, telemetry } = capture()
    const about = { webhook_id: 'w1', delivery_id: 'd1', type: 'turn.finished', duration_ms: 12 }
    webhookAttempted(telemetry, {
      ...about, attempt: 1, result: 'status', status_code: 500, status: 'pending', error: 'The receiver answered 500',
    }) // prettier-ignore
    webhookAttempted(telemetry, {
      ...about, attempt: 2, result: 'success', status_code: 204, status: 'delivered', error: null,
    }) // prettier-ignore
    webhookDisabled(telemetry, { webhook_id: 'w1', reason: 'gone' })
    expect(lines.map(({ event }) => event)).toEqual(['webhook_attempted', 'webhook_attempted', 'webhook_disabled'])
    const text = await telemetry.metrics.scrape()
    for (const line of [
      'webhook_attempt_total{result="status"} 1',
      'webhook_attempt_total{result="success"} 1',
      'webhook_delivery_total{status="delivered"} 1',
      'webhook_attempt_duration_seconds_count 2',
      'webhook_disabled_total{reason="gone"} 1',
    ])
      expect(text.split('\n')).toContain(line)
  })

  test('is one line and its counts', async () => {
    const { lines, telemetry } = capture()
    claimed(telemetry, { ...ids, outcome: 'hit_shared', sandbox_id: 'b1' })
    claimed(telemetry, { ...ids, outcome: 'miss_empty', sandbox_id: null })
    sessionCreated(telemetry, { ...ids, spawn_mode: 'warm' })
    sessionReady(telemetry, {
      ...ids,
      spawn_mode: 'warm',
      sandbox_id: 'b1',
      attempt: 1,
      duration_ms: 40,
      phases: { claimed: 2, bound: 30 },
    })
    sessionFailed(telemetry, { ...ids, spawn_mode: 'cold', code: 'clone_failed', reason: 'no', starting: true })
    sessionEnded(telemetry, { ...ids, reason: 'idle_timeout' })
    turnFinished(telemetry, { session_id: 's1', turn_id: 't1', status: 'done', duration_ms: 1_500 })
    sandboxWarm(telemetry, { sandbox_id: 'b1', agent_id: 'a1', duration_ms: 3_000 })
    sandboxFailed(telemetry, {
      sandbox_id: 'b2',
      agent_id: 'a1',
      purpose: 'pool',
      stage: 'start',
      code: 'oom_killed',
      message: 'killed',
    })
    expect(lines.map(({ event }) => event)).toEqual([
      'claimed',
      'claimed',
      'session_created',
      'session_ready',
      'session_failed',
      'session_ended',
      'turn_finished',
      'sandbox_warm',
      'sandbox_failed',
    ])
    const text = await telemetry.metrics.scrape()
    for (const line of [
      'warm_pool_hit_total 1',
      'warm_pool_miss_total 1',
      'warm_pool_claim_total{outcome="hit_shared"} 1',
      'session_spawn_total{path="warm",result="success"} 1',
      'session_spawn_total{path="cold",result="failed"} 1',
      'session_spawn_failure_total{path="cold",reason="clone_failed"} 1',
      'session_spawn_duration_seconds_sum{path="warm"} 0.04',
      'session_phase_duration_seconds_sum{phase="claimed"} 0.028',
      'session_phase_duration_seconds_sum{phase="bound"} 0.01',
      'session_death_total{reason="idle_timeout"} 1',
      'session_death_total{reason="failed:clone_failed"} 1',
      'turn_total{status="done"} 1',
      'warm_pool_provision_total{result="success"} 1',
      'warm_pool_provision_total{result="failed"} 1',
      'warm_pool_provision_duration_seconds_sum 3',
      'sandbox_oom_killed_total 1',
    ])
      expect(text.split('\n')).toContain(line)
    expect(text).not.toMatch(/"(s1|a1|b1|b2|t1)"/)
  })

  test('of a stream counts it while it is open, and once when it is dropped', async () => {
    const { lines, telemetry } = capture()
    const first = streamOpened(telemetry, { session_id: 's1' })
    const second = streamOpened(telemetry, { session_id: 's1' })
    expect(await telemetry.metrics.scrape()).toContain('sse_streams_open 2\n')
    first('slow')
    first('closed')
    expect(await telemetry.metrics.scrape()).toContain('sse_streams_open 1\n')
    second('closed')
    expect(await telemetry.metrics.scrape()).toContain('sse_streams_open 0\n')
    expect(await telemetry.metrics.scrape()).toContain('sse_streams_dropped_total 1\n')
    expect(lines.map(({ event }) => event)).toEqual(['stream_dropped'])
  })

  test('of the ledger is a warning only if something was repaired', () => {
    const { lines, telemetry } = capture()
    const none = {
      rows_gone: 0,
      objects_removed: 0,
      sandboxes_released: 0,
      sandboxes_marked: 0,
      workflows_started: 0,
      sessions_failed: 0,
      sessions_expired: 0,
      pools_restarted: 0,
      deliveries_started: 0,
      checkpoints_expired: 0,
      checkpoints_lost: 0,
      archives_removed: 0,
      leaked: 0,
      errors: 0,
      duration_ms: 3,
    }
    ledgerChecked(telemetry, none)
    ledgerChecked(telemetry, { ...none, rows_gone: 1 })
    expect(lines.map(({ level }) => level)).toEqual(['debug', 'warn'])
  })
})

describe('the gauges of shared state', () => {
  test('are absent without a source', async () => {
    const text = await createMetrics().scrape()
    for (const name of [
      'warm_pool_depth',
      'sessions_live',
      'outbox_depth',
      'webhook_deliveries_pending',
      'leaked_sandboxes',
    ])
      expect(text).not.toContain(name)
  })

  test('are read at each scrape, with every state, and left out when the source fails', async () => {
    const metrics = createMetrics()
    let warm = 3
    let down = false
    metrics.readGaugesFrom(async () => {
      if (down) throw new Error('database is down')
      return {
        pool: { warm },
        sandboxes: { claimed: 1 },
        sessions: { ready: 1 },
        outbox: 2,
        webhookDeliveries: 4,
        leakedSandboxes: 0,
      }
    })
    const text = await metrics.scrape()
    for (const line of [
      'warm_pool_depth{state="warm"} 3',
      'warm_pool_depth{state="provisioning"} 0',
      'sandboxes{state="claimed"} 1',
      'sessions_live{status="ready"} 1',
      'outbox_depth 2',
      'webhook_deliveries_pending 4',
      'leaked_sandboxes 0',
    ])
      expect(text.split('\n')).toContain(line)
    warm = 1
    expect(await metrics.scrape()).toContain('warm_pool_depth{state="warm"} 1\n')
    down = true
    const without = await metrics.scrape()
    expect(without).not.toContain('warm_pool_depth{')
    expect(without).not.toMatch(/^outbox_depth /m)
    expect(without).toContain('process_cpu_seconds_total')
  })
})

describe('the metrics server', () => {
  test('serves /metrics and /healthz on a port of its own, and nothing else', async () => {
    const { telemetry } = capture()
    sessionEnded(telemetry, { ...ids, reason: 'deleted' })
    const url = await serve(telemetry.metrics)
    const scraped = await fetch(`${url}/metrics`)
    expect(scraped.status).toBe(200)
    expect(scraped.headers.get('content-type')).toContain('version=0.0.4')
    expect(await scraped.text()).toContain('session_death_total{reason="deleted"} 1')
    expect((await fetch(`${url}/healthz`)).status).toBe(200)
    expect((await fetch(`${url}/`)).status).toBe(404)
    expect((await fetch(`${url}/metrics`, { method: 'POST' })).status).toBe(405)
  })

  test('says so when its port is taken', async () => {
    const url = await serve(createMetrics())
    const port = Number(new URL(url).port)
    await expect(startMetricsServer({ port, host: '127.0.0.1', metrics: createMetrics() })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    })
  })
})
