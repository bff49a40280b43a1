import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { EVENT_CHANNEL } from '../domain/names.ts'
import { createListener } from './listen.ts'
import type { Listener } from './listen.ts'
import type { Sql } from './sql.ts'

let database: TestDatabase
let sql: Sql

beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())

const tell = (sessionId: string) => sql.query('select pg_notify($1, $2)', [EVENT_CHANNEL, sessionId])
const listeners = async (): Promise<number[]> =>
  (
    await sql.query<{ pid: number }>(
      "select pid from pg_stat_activity where datname = current_database() and application_name = 'lap listen'",
    )
  ).map(({ pid }) => pid)

/** Resolves with the next piece of news. */
const news = (listener: Listener, sessionId: string): Promise<void> =>
  new Promise((resolve) => {
    const stop = listener.subscribe(sessionId, () => {
      stop()
      resolve()
    })
  })

test('one connection serves every stream of a process, and news reach those of their session only', async () => {
  await using listener = createListener(database.url)
  const [mine, theirs] = [randomUUID(), randomUUID()]
  await news(listener, mine) // once when the connection stands
  const heard: string[] = []
  for (let i = 0; i < 10; i++) listener.subscribe(mine, () => heard.push(mine))
  const stop = listener.subscribe(theirs, () => heard.push(theirs))
  const told = news(listener, mine)
  await tell(mine)
  await told
  expect(heard).toEqual(Array.from({ length: 10 }, () => mine))
  stop()
  const last = news(listener, mine)
  await tell(theirs)
  await tell(mine)
  await last
  expect(heard).not.toContain(theirs)
  expect(await listeners()).toHaveLength(1)
})

test('a connection that is killed comes back, wakes every stream once, and brings news again', async () => {
  const lost: Error[] = []
  await using listener = createListener(database.url, (error) => lost.push(error))
  const ids = Array.from({ length: 3 }, () => randomUUID())
  await Promise.all(ids.map((id) => news(listener, id)))
  for (let round = 1; round <= 3; round++) {
    const back = Promise.all(ids.map((id) => news(listener, id)))
    const [pid] = await listeners()
    await sql.query('select pg_terminate_backend($1)', [pid])
    await back
    expect(lost).toHaveLength(round)
    expect(await listeners()).not.toContain(pid)
    const more = news(listener, ids[0]!)
    await tell(ids[0]!)
    await more
  }
})

test('a process that starts while Postgres is down listens as soon as it is up', async () => {
  const target = new URL(database.url)
  const sockets = new Set<net.Socket>()
  const server = net.createServer((client) => {
    const upstream = net.connect(Number(target.port), target.hostname)
    for (const socket of [client, upstream]) sockets.add(socket.on('error', () => {}))
    client.pipe(upstream).pipe(client)
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as net.AddressInfo
  server.close()
  const later = new URL(database.url)
  later.host = `127.0.0.1:${port}`
  {
    const losses: Error[] = []
    await using listener = createListener(later.href, (error) => losses.push(error))
    while (losses.length < 2) await new Promise((resolve) => setTimeout(resolve, 20))
    expect(listener.connected).toBe(false)
    const woken = news(listener, randomUUID())
    server.listen(port, '127.0.0.1')
    await woken
    expect(listener.connected).toBe(true)
  }
  sockets.forEach((socket) => socket.destroy())
  server.close()
})

test('a listener that is ended leaves no connection and does not come back', async () => {
  const lost: Error[] = []
  const listener = createListener(database.url, (error) => lost.push(error))
  await news(listener, randomUUID())
  const [pid] = await listeners()
  await listener[Symbol.asyncDispose]()
  await new Promise((resolve) => setTimeout(resolve, 200))
  expect(await listeners()).not.toContain(pid)
  expect(lost).toEqual([])
})
