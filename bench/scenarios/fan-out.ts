import { setTimeout as sleep } from 'node:timers/promises'
import { connectionsOf } from '../../test/postgres-connections.ts'
import type { Bench, Ready, Scenario } from '../bench.ts'
import { deltaOf, type Session, type StreamEvent } from '../client.ts'
import { saidAt } from '../model.ts'
import { atOnce, type Figure } from '../stats.ts'

const POOL = 10
const GAP_MS = 50

/** What one reader saw of each streamed word. */
type Seen = { seq: number; said: number; at: number }

type Until = { words: number; signal?: AbortSignal }

/** Opens `count` streams over both APIs. `opened`: all are open; `done`: each has seen that many words, or was left by the signal. */
const openReaders = (ready: Ready, session: Session, count: number, { words, signal }: Until) => {
  const stop = new AbortController()
  signal?.addEventListener('abort', () => stop.abort())
  const streams = Array.from({ length: count }, (_, i) => {
    const client = ready.apis[i % 2] ?? ready.client
    const seen: Seen[] = []
    const { promise: opened, resolve: onOpen } = Promise.withResolvers<void>()
    const onEvent = (event: StreamEvent): boolean => {
      const said = saidAt(deltaOf(event) ?? '')
      if (said !== null) seen.push({ seq: event.id ?? 0, said, at: event.at })
      return seen.length === words
    }
    const over = client.events(session.id, onEvent, { signal: stop.signal, onOpen })
    return { opened, done: over.then(() => seen) }
  })
  const done = Promise.all(streams.map((stream) => stream.done))
  done.catch(() => stop.abort())
  return { opened: Promise.race([Promise.all(streams.map((stream) => stream.opened)), done]), done }
}

const streamTo = async (bench: Bench, count: number, words: number, gapMs: number) => {
  const ready = await bench.withPool('light', POOL)
  const session = await ready.open()
  await ready.quiet()
  const { opened, done } = openReaders(ready, session, count, { words })
  await opened
  const sent = ready.client.send(session.id, `stream ${words} every ${gapMs}`)
  const [seen] = await Promise.all([done, sent])
  const stored = await bench.sql<{ seq: number; created_at: Date }>(
    'select seq, created_at from event where session_id = $1',
    [session.id],
  )
  await ready.client.end(session.id)
  const storedAt = new Map(stored.map(({ seq, created_at }) => [seq, created_at.getTime()]))
  return {
    seen,
    fromModel: seen.flatMap((one) => one.map(({ said, at }) => at - said)),
    fromLog: seen.flatMap((one) => one.map(({ seq, at }) => at - (storedAt.get(seq) ?? Number.NaN))),
  }
}

/** Connections to Postgres that each API holds at a moment: one that listens, and those that something is asked over. The others are free in its pool. */
const heldConnections = (bench: Bench, { apiPids }: Ready): Promise<number[]> =>
  atOnce(apiPids.length, async (i) => {
    const open = await connectionsOf(apiPids[i] ?? 0, bench.sql)
    return open.filter(({ name, state }) => name === 'lap listen' || state !== 'idle').length
  })

/** What `look` finds, again and again until the signal. */
const sampled = async (over: AbortSignal, look: () => Promise<number[]>): Promise<number[]> => {
  const samples: number[] = []
  while (!over.aborted) {
    samples.push(...(await look()))
    await sleep(GAP_MS)
  }
  return samples
}

/** Many people look at ten sessions, and one of those works. */
const amongMany = async (bench: Bench): Promise<Figure[]> => {
  const ready = await bench.withPool('light', POOL)
  const [active, ...quiet] = await atOnce(POOL, () => ready.open())
  if (active === undefined) throw new Error('no session')
  await ready.quiet()
  const [each, words] = [bench.count(50, 5), bench.count(400, 20)]
  const leave = new AbortController()
  const waiting = quiet.map((session) => openReaders(ready, session, each, { words: 1, signal: leave.signal }))
  const { opened, done } = openReaders(ready, active, each, { words })
  await Promise.all([opened, ...waiting.map((readers) => readers.opened)])
  const over = new AbortController()
  const [seen, held] = await Promise.all([
    done.finally(() => over.abort()),
    sampled(over.signal, () => heldConnections(bench, ready)),
    ready.client.send(active.id, `stream ${words} every ${GAP_MS}`),
  ])
  const { api } = await ready.memory()
  leave.abort()
  await Promise.all(waiting.map((readers) => readers.done))
  await atOnce(POOL, (i) => ready.client.end([active, ...quiet][i]?.id ?? ''))
  return [
    {
      name: `event: said → read, ${each} of ${each * POOL} streams`,
      samples: seen.flatMap((one) => one.map(({ said, at }) => at - said)),
      reach: { p50: 30, p99: 100 },
    },
    {
      name: '  Postgres connections that one API holds',
      unit: 'connections',
      samples: held,
      reach: { p50: 1 },
    },
    { name: '  memory of one API', unit: 'MB', samples: [api] },
  ]
}

const run = async (bench: Bench): Promise<Figure[]> => {
  const figures: Figure[] = []
  for (const count of [1, 10, bench.count(100, 20)]) {
    const words = count > 10 ? bench.count(50, 20) : bench.count(200, 20)
    const { fromModel, fromLog } = await streamTo(bench, count, words, GAP_MS)
    const who = count === 1 ? '1 reader' : `${count} readers`
    const reach = count === 1 ? { reach: { p50: 30, p99: 100 } } : {}
    figures.push({ name: `event: said → read, ${who}`, samples: fromModel, ...reach })
    figures.push({ name: `  of it: stored → read, ${who}`, samples: fromLog })
  }
  figures.push(...(await amongMany(bench)))
  const many = bench.count(5_000, 500)
  for (const count of [1, 20]) {
    const { seen } = await streamTo(bench, count, many, 0)
    const rates = seen.map((one) => one.length / (((one.at(-1)?.at ?? 0) - (one[0]?.said ?? 0)) / 1_000))
    const who = count === 1 ? '1 reader' : `each of ${count} readers`
    figures.push({ name: `events of one session, ${who}`, unit: 'per second', samples: rates })
  }
  return figures
}

export const fanOut: Scenario = {
  name: 'fan-out',
  about: 'words of a turn on their way to the readers of its stream',
  run,
}
