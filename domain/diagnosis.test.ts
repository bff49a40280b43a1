import { describe, expect, test } from '@jest/globals'
import { detectIssues } from './diagnosis.ts'
import type { Facts, IssueCode } from './diagnosis.ts'

const now = new Date('2026-01-01T12:00:00Z')
const ago = (ms: number): Date => new Date(now.getTime() - ms)
const SECOND = 1_000
const MINUTE = 60 * SECOND

const healthy: Facts = {
  now,
  seen: 'now',
  session: {
    status: 'ready',
    created_at: ago(10 * MINUTE),
    moves: 0,
    sandbox_url: 'http://127.0.0.1:1',
    failure_code: null,
    failure_reason: null,
    limit_reached: null,
  },
  sandbox: { state: 'claimed', failure_code: null, failure_message: null, vanished: false },
  pod: { exists: true, phase: 'Running', age_ms: 10 * MINUTE, all_ready: true, waiting_reasons: [] },
  node: { exists: true, gone: false, ready_status: 'True', allocated_pct: { cpu: 100, memory: 100 } },
  service: { expected: true, exists: true, node_port: 30_000 },
  probe: { reachable: true, error: null },
  pool: {
    configured_size: 2,
    warm: 1,
    provisioning: 0,
    backoff_until: null,
    breaker_open: false,
    breaker_reason: null,
    reason: null,
  },
  workflow: { exists: true, status: 'RUNNING' },
  turn: null,
}

const asks = { id: 'permission-1', title: 'rm -rf build', expires_at: ago(-MINUTE) }
type Turn = NonNullable<Facts['turn']>
const quiet = (started_at: Date, last_event_at: Date | null, asks: Turn['asks'] = null): Turn => ({
  started_at,
  last_event_at,
  asks,
})

type Over = { [K in keyof Facts]?: Facts[K] extends Date | string ? Facts[K] : Partial<NonNullable<Facts[K]>> | null }
const facts = (over: Over): Facts =>
  Object.fromEntries(
    Object.entries(healthy).map(([key, value]) => {
      const change = over[key as keyof Facts]
      if (change === undefined) return [key, value]
      if (change === null || change instanceof Date || typeof change === 'string') return [key, change]
      return [key, { ...(value as object | null), ...change }]
    }),
  ) as Facts
const codes = (over: Over): IssueCode[] => detectIssues(facts(over)).map((issue) => issue.code)

test('a healthy session has no issue', () => {
  expect(codes({})).toEqual([])
})

describe.each<[IssueCode, Over[], Over[]]>([
  [
    'dead_node_assigned',
    [
      { node: { ready_status: 'False' } },
      { node: { ready_status: 'Unknown' } },
      { node: { exists: false, gone: true, ready_status: null } },
    ],
    [
      { pod: { exists: false }, node: { exists: false, gone: true, ready_status: null } },
      { node: { ready_status: null } },
      { node: { exists: false, ready_status: 'False' } },
      { pod: { exists: false }, node: { ready_status: 'False' } },
    ],
  ],
  [
    'stale_node_host_cache_suspect',
    [{ session: { status: 'creating', created_at: ago(121 * SECOND), sandbox_url: null } }],
    [
      { session: { status: 'creating', created_at: ago(119 * SECOND), sandbox_url: null } },
      { session: { status: 'creating', created_at: ago(121 * SECOND) } },
      { session: { sandbox_url: null } },
      {
        session: { status: 'creating', created_at: ago(121 * SECOND), sandbox_url: null },
        service: { node_port: null },
      },
      { session: { status: 'creating', created_at: ago(121 * SECOND), sandbox_url: null }, pod: { phase: 'Pending' } },
    ],
  ],
  [
    'pod_image_pull_backoff',
    [
      { pod: { waiting_reasons: ['ImagePullBackOff'] } },
      { pod: { waiting_reasons: ['ContainerCreating', 'ErrImagePull'] } },
      { pod: { waiting_reasons: ['ErrImageNeverPull'] } },
    ],
    [{ pod: { waiting_reasons: ['ContainerCreating'] } }],
  ],
  [
    'pod_not_ready_old',
    [{ pod: { all_ready: false, age_ms: 181 * SECOND } }],
    [
      { pod: { all_ready: false, age_ms: 179 * SECOND } },
      { pod: { all_ready: null } },
      { pod: { all_ready: false, age_ms: null } },
    ],
  ],
  [
    'harness_unreachable',
    [{ probe: { reachable: false, error: 'ECONNREFUSED' } }],
    [{ probe: null }, { probe: { reachable: false }, pod: { phase: 'Pending' } }],
  ],
  [
    'node_oversubscribed',
    [{ node: { allocated_pct: { cpu: 151, memory: 1 } } }, { node: { allocated_pct: { cpu: 1, memory: 151 } } }],
    [{ node: { allocated_pct: { cpu: 150, memory: 150 } } }, { node: { allocated_pct: null } }],
  ],
  [
    'service_missing',
    [{ service: { exists: false } }],
    [
      { service: { exists: false, expected: false } },
      { service: { exists: null } },
      { service: { exists: false }, pod: { exists: false } },
    ],
  ],
  [
    'warm_pool_empty_for_agent',
    [{ pool: { warm: 0 } }],
    [{ pool: { warm: 0, provisioning: 1 } }, { pool: { warm: 0, configured_size: 0 } }],
  ],
  [
    'session_failed',
    [{ session: { status: 'failed', failure_code: 'clone_failed' } }],
    [{ session: { status: 'dead' } }, { session: { status: 'creating' } }],
  ],
  [
    'warm_pool_backoff',
    [{ pool: { backoff_until: ago(-MINUTE) } }, { pool: { breaker_open: true } }],
    [{ pool: { backoff_until: ago(MINUTE) } }],
  ],
  [
    'workflow_missing',
    [{ workflow: { exists: false, status: null } }, { workflow: { status: 'FAILED' } }],
    [
      { workflow: null },
      { workflow: { exists: false }, session: { created_at: ago(5 * SECOND) } },
      { workflow: { status: 'COMPLETED' }, session: { status: 'dead' } },
    ],
  ],
  [
    'turn_stuck',
    [{ turn: quiet(ago(20 * MINUTE), ago(11 * MINUTE)) }, { turn: quiet(ago(11 * MINUTE), null) }],
    [
      { turn: quiet(ago(20 * MINUTE), ago(11 * MINUTE), asks) },
      { turn: quiet(ago(20 * MINUTE), ago(9 * MINUTE)) },
      { turn: quiet(ago(20 * MINUTE), ago(11 * MINUTE)), session: { status: 'dead' } },
    ],
  ],
  [
    'needs_input',
    [{ turn: quiet(ago(SECOND), ago(SECOND), asks) }],
    [{ turn: quiet(ago(SECOND), ago(SECOND)) }, { turn: quiet(ago(SECOND), null, asks), session: { status: 'dead' } }],
  ],
  [
    'limit_reached',
    [{ session: { limit_reached: 'max_turns' } }],
    [{}, { session: { limit_reached: 'max_turns', status: 'dead' } }],
  ],
  [
    'sandbox_lost',
    [{ sandbox: { state: 'gone' } }, { sandbox: { vanished: true } }, { session: { moves: 2 } }],
    [
      { sandbox: { state: 'gone' }, session: { status: 'dead' } },
      { sandbox: { vanished: true }, session: { status: 'failed' } },
      { sandbox: null },
    ],
  ],
])('%s', (code, raised, quiet) => {
  test.each(raised)('is raised by %j', (over) => {
    expect(codes(over)).toContain(code)
  })
  test.each(quiet)('is not raised by %j', (over) => {
    expect(codes(over)).not.toContain(code)
  })
})

test('what is only remembered is told as such', () => {
  const [issue] = detectIssues(facts({ seen: 'before', pod: { waiting_reasons: ['ImagePullBackOff'] } }))
  expect(issue?.message).toBe(
    'As last seen, before it went: The image of the sandbox cannot be pulled: ImagePullBackOff.',
  )
  const [failed] = detectIssues(facts({ seen: 'before', session: { status: 'failed', failure_code: 'image_pull' } }))
  expect(failed?.message).toBe('The session failed: image_pull')
})

test('the gravest issue comes first', () => {
  const severities = detectIssues(
    facts({ pool: { warm: 0, breaker_open: true }, node: { ready_status: 'False' } }),
  ).map((issue) => issue.severity)
  expect(severities).toEqual(['high', 'med', 'info'])
})
