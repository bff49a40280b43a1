import { randomInt, randomUUID } from 'node:crypto'
import { readFileSync, existsSync } from 'node:fs'
import path from 'node:path'
import { expect } from '@jest/globals'
import { Client, Connection } from '@temporalio/client'
import type { Part, Reply, Stack } from './stack.ts'
import { until } from '../until.ts'

/** What the tests do and look at, in the terms of the platform. */

export type Session = {
  id: string
  status: string
  spawn_mode: string
  end_reason: string | null
  attempt: number
  last_seq: number
  task_arn: string | null
}
export type Message = {
  info: Record<string, unknown>
  parts: { type: string; text?: string }[]
  error?: string
  code?: string
}
export type Turn = {
  id: string
  status: string
  reply: Message | null
  sandbox_id: string | null
  error: { code: string; message: string } | null
}
export type LogEvent = {
  seq: number
  type: string
  data: { type?: string; turn_id?: string; properties?: { delta?: string } & Record<string, unknown> } & Record<
    string,
    unknown
  >
  sandbox_id: string | null
  journal_seq: number | null
}

/** An agent with the light harness. */
export const createAgent = async (stack: Stack, more: object = {}): Promise<string> => {
  const { status, body } = await stack.http<{ id: string }>('POST', '/agents', {
    name: 'agent',
    model: 'scripted',
    harness_id: 'light',
    ...more,
  })
  expect({ status, body }).toMatchObject({ status: 200 })
  return body.id
}

export const openSession = async (
  stack: Stack,
  agentId: string,
  options: { wait?: boolean; api?: number; body?: object } = {},
): Promise<Session> => {
  const query = options.wait === true ? '?wait=ready' : ''
  const { status, body } = await stack.http<Session>('POST', `/agents/${agentId}/session${query}`, options.body ?? {}, {
    api: options.api ?? 0,
  })
  expect({ status, body }).toMatchObject({ status: 200 })
  return body
}

export const getSession = async (stack: Stack, id: string): Promise<Session> =>
  (await stack.http<Session>('GET', `/sessions/${id}`)).body

export const reaches = (stack: Stack, id: string, status: string, deadlineMs = 60_000): Promise<Session> =>
  until(`session ${id} is ${status}`, deadlineMs, async () => {
    const session = await getSession(stack, id)
    return session.status === status ? session : null
  })

/** Sends a message and waits for its reply. */
export const say = (stack: Stack, sessionId: string, text: string, options: { key?: string; api?: number } = {}) =>
  stack.http<Message>(
    'POST',
    `/sessions/${sessionId}/message`,
    { text },
    {
      api: options.api ?? 0,
      ...(options.key === undefined ? {} : { headers: { 'idempotency-key': options.key } }),
    },
  )

export const textOf = (message: Message | null): string =>
  (message?.parts ?? []).flatMap((part) => (part.type === 'text' ? [part.text ?? ''] : [])).join('')

export const turnsOf = (stack: Stack, sessionId: string): Promise<Turn[]> =>
  stack.sql<Turn>('select id, status, reply, sandbox_id, error from turn where session_id = $1 order by seq', [
    sessionId,
  ])

export const eventsOf = (stack: Stack, sessionId: string): Promise<LogEvent[]> =>
  stack.sql<LogEvent>('select seq, type, data, sandbox_id, journal_seq from event where session_id = $1 order by seq', [
    sessionId,
  ])

export const poolCounts = async (stack: Stack): Promise<{ warm: number; provisioning: number }> => {
  const [counts] = await stack.sql<{ warm: number; provisioning: number }>(
    `select count(*) filter (where state = 'warm' and not retiring)::int warm, count(*) filter (where state = 'provisioning')::int provisioning
     from sandbox where purpose = 'pool'`,
  )
  return counts ?? { warm: 0, provisioning: 0 }
}

export const poolHas = (stack: Stack, warm: number, deadlineMs = 90_000): Promise<true> =>
  until(`${warm} warm sandboxes`, deadlineMs, async () => (await poolCounts(stack)).warm === warm || null)

/** A first session makes the agent eligible; then the pool fills. */
export const warmPool = async (stack: Stack, agentId: string, size: number): Promise<void> => {
  const first = await openSession(stack, agentId, { wait: true })
  await stack.http('DELETE', `/sessions/${first.id}`)
  await poolHas(stack, size)
}

/** A turn waits ten seconds for the heartbeat of a dead worker, and the next worker may be killed too. */
const INSIST_MS = 180_000

/** As a careful client does: the same key on either of two APIs until there is an answer. */
export const insist = async <T>(
  stack: Stack,
  method: string,
  route: string,
  { key, body }: { key: string; body?: unknown },
): Promise<Reply<T>> => {
  let api = randomInt(2)
  return until(`an answer to ${method} ${route}`, INSIST_MS, async () => {
    api = 1 - api
    const reply = await stack.http<T>(method, route, body, {
      api,
      headers: { 'idempotency-key': key },
      signal: AbortSignal.timeout(INSIST_MS),
    })
    return reply.status < 500 && reply.status !== 429 ? reply : null
  })
}

/** The text that a turn streamed, from its deltas. */
export const streamedText = (events: LogEvent[]): string =>
  events.flatMap(({ data }) => (data['type'] === 'message.part.delta' ? [data.properties?.delta ?? ''] : [])).join('')

/** Numbers of the log and of each journal in it are 1, 2, 3, … */
export const expectWholeLog = async (stack: Stack, sessionId: string): Promise<LogEvent[]> => {
  // In one statement: something, such as a checkpoint, may be written at any moment.
  const events = await stack.sql<LogEvent & { last_seq: number }>(
    `select e.seq, e.type, e.data, e.sandbox_id, e.journal_seq, s.last_seq
     from session s join event e on e.session_id = s.id where s.id = $1 order by e.seq`,
    [sessionId],
  )
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, i) => i + 1))
  expect(events.length).toBe(events.at(-1)?.last_seq)
  for (const sandbox of new Set(events.flatMap(({ sandbox_id }) => sandbox_id ?? []))) {
    const journal = events.flatMap(({ sandbox_id, journal_seq }) =>
      sandbox_id === sandbox && journal_seq !== null ? [journal_seq] : [],
    )
    expect(journal).toEqual(journal.toSorted((a, b) => a - b))
    expect(new Set(journal).size).toBe(journal.length)
  }
  for (const turn of await turnsOf(stack, sessionId)) {
    const count = (type: string): number =>
      events.filter((event) => event.type === type && event.data.turn_id === turn.id).length
    expect({ turn: turn.id, queued: count('turn.queued') }).toEqual({ turn: turn.id, queued: 1 })
    expect(count('turn.started')).toBeLessThanOrEqual(1)
    if (turn.status !== 'queued' && turn.status !== 'running')
      expect({ turn, finished: count('turn.finished') }).toMatchObject({ finished: 1 })
  }
  return events
}

export type SandboxRow = {
  id: string
  name: string
  state: string
  session_id: string | null
  purpose: string
  endpoint: string | null
}

export const sandboxesOf = (stack: Stack, sessionId: string): Promise<SandboxRow[]> =>
  stack.sql<SandboxRow>(
    'select id, name, state, session_id, purpose, endpoint from sandbox where session_id = $1 order by created_at',
    [sessionId],
  )

/** Process id of a sandbox' supervisor. */
export const supervisorPid = (stack: Stack, name: string): number => {
  const record: { supervisor: { pid: number } } = JSON.parse(
    readFileSync(path.join(stack.sandboxDir, name, 'sandbox.json'), 'utf8'),
  )
  return record.supervisor.pid
}

/** Nothing of these sandboxes is left: no process, no directory, no live row. */
export const leavesNothing = async (stack: Stack, names: string[], deadlineMs = 30_000): Promise<void> => {
  await until(`nothing is left of ${names.length} sandboxes`, deadlineMs, async () => {
    const rows = await stack.sql<SandboxRow>("select * from sandbox where name = any($1) and state <> 'gone'", [names])
    return rows.length === 0 && names.every((name) => !existsSync(path.join(stack.sandboxDir, name)))
  })
  const processes = stack.sandboxProcesses()
  expect(processes.filter(({ command }) => names.some((name) => command.includes(name)))).toEqual([])
}

const withTemporal = async <T>(stack: Stack, work: (client: Client) => Promise<T>): Promise<T> => {
  const connection = await Connection.connect({ address: stack.temporalAddress, connectTimeout: 5_000 })
  try {
    return await work(new Client({ connection, namespace: 'lap' }))
  } finally {
    await connection.close()
  }
}

/** Status of a workflow, for instance `RUNNING`; null when Temporal knows none of that id. */
export const workflowStatus = (stack: Stack, workflowId: string): Promise<string | null> =>
  withTemporal(stack, async (client) => {
    try {
      return (await client.workflow.getHandle(workflowId).describe()).status.name
    } catch (error) {
      if (Error.isError(error) && error.name === 'WorkflowNotFoundError') return null
      throw error
    }
  })

/** Whether a workflow runs and has nothing to do: a worker that is amid a step of it would finish that also after its termination. */
export const workflowRests = (stack: Stack, workflowId: string): Promise<boolean> =>
  withTemporal(stack, async (client) => {
    try {
      const { status, raw } = await client.workflow.getHandle(workflowId).describe()
      return status.name === 'RUNNING' && !raw.pendingWorkflowTask && !raw.pendingActivities?.length
    } catch (error) {
      if (Error.isError(error) && error.name === 'WorkflowNotFoundError') return false
      throw error
    }
  })

/** How often an activity of a workflow has been begun, the one that runs or waits now. */
export const activityAttempts = (stack: Stack, workflowId: string): Promise<number> =>
  withTemporal(stack, async (client) => {
    const { raw } = await client.workflow.getHandle(workflowId).describe()
    return Math.max(0, ...(raw.pendingActivities ?? []).map(({ attempt }) => attempt ?? 0))
  })

/** The worker that runs the turn of a session now. */
export const workerOfTurn = (stack: Stack, sessionId: string, workers: Part[]): Promise<Part> =>
  withTemporal(stack, async (client) => {
    const { raw } = await client.workflow.getHandle(`session/${sessionId}`).describe()
    const turn = raw.pendingActivities?.find(({ activityType }) => activityType?.name === 'runTurn')
    const found = workers.find((worker) => turn?.lastWorkerIdentity?.startsWith(`${worker.pid()}@`) === true)
    if (found === undefined) throw new Error(`no worker is ${String(turn?.lastWorkerIdentity)}`)
    return found
  })

export const terminateWorkflow = (stack: Stack, workflowId: string): Promise<unknown> =>
  withTemporal(stack, (client) => client.workflow.getHandle(workflowId).terminate('a test'))

/** The janitor looks when `sweep` says so, and at no other time. */
export const pauseJanitor = (stack: Stack): Promise<void> =>
  withTemporal(stack, (client) => client.schedule.getHandle('janitor').pause())

/**
 * Has the janitor look now, and waits until it has. Not by its schedule, which does not say which of its runs a trigger began.
 * @returns what it put right
 */
export const sweep = (stack: Stack): Promise<Record<string, number>> =>
  withTemporal(stack, (client) =>
    client.workflow.execute<() => Promise<Record<string, number>>>('janitor', {
      workflowId: `janitor-${randomUUID()}`,
      taskQueue: 'lap',
    }),
  )

/** Each with its index, all at once. */
export const times = <T>(count: number, work: (i: number) => Promise<T>): Promise<T[]> =>
  Promise.all(Array.from({ length: count }, (_, i) => work(i)))
