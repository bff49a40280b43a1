import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, jest, test } from '@jest/globals'
import type { TestApi } from '../../test/api.ts'
import { type TerminalSession, buildTerminalSession, withTerminal } from '../../test/terminal/session.ts'
import { startServer } from '../server.ts'

jest.setTimeout(120_000)

let api: TestApi
let session: TerminalSession
withTerminal((world) => void ({ api, session } = world))

const activity = async (id = session.id): Promise<number> => {
  const row = await api.deps.sql.one<{ last_activity_at: Date }>('select last_activity_at from session where id = $1', [
    id,
  ])
  return row!.last_activity_at.getTime()
}
/** As if nothing had happened for an hour. */
const age = (id = session.id) =>
  api.deps.sql.query("update session set last_activity_at = now() - interval '1 hour' where id = $1", [id])
const anHourAgo = (): number => Date.now() - 30 * 60_000

test('viewers of one session at several replicas see the same screen, and each other’s size', async () => {
  const replica = await startServer(api.deps, { host: '127.0.0.1', port: 0 })
  const first = await session.open()
  const second = await session.open({}, replica.url)
  first.type('seq 1 100; printf "\\033[1;34mblue\\033[0m\\n"\r')
  await second.until(/^blue\n\$ $/m)
  await first.until(/^blue\n\$ $/m)
  expect(second.screen()).toEqual(first.screen())
  const third = await session.open({}, replica.url)
  await third.until(/^blue\n\$ $/m)
  expect(third.everything()).toEqual(first.everything())
  expect(third.cursor()).toEqual(first.cursor())
  third.resize({ cols: 80, rows: 25 })
  while (first.notices.at(-1)?.['cols'] !== 80) await sleep(5)
  second.type('stty size\r')
  await first.until(/^25 80$/m)
  for (const each of [first, second, third]) await each[Symbol.asyncDispose]()
  await replica.drain()
})

test('bytes pass as they are; text that looks like control is typed when it comes as bytes', async () => {
  await using terminal = await session.open()
  const typed = '{"type":"resize","cols":40,"rows":10}'
  terminal.type('clear; stty size; echo re""ady; head -n 1 > typed.json; clear; stty size; cat typed.json\r')
  const [size] = /^\d+ \d+$/m.exec(await terminal.until(/^ready$/m))!
  terminal.type(`${typed}\r`)
  await terminal.until(new RegExp(`^${size}\\n\\${typed}$`, 'm'))
})

test('clients of the reference send and get text; their resize and ping are control', async () => {
  await using terminal = await session.open({ protocol: null })
  terminal.socket.send(JSON.stringify({ type: 'resize', cols: 70, rows: 20 }))
  terminal.socket.send(JSON.stringify({ type: 'ping' }))
  terminal.socket.send('clear; stty size; echo "{\\"type\\": 1} für $((1+1)) €"\r')
  await terminal.until(/^20 70$/m)
  await terminal.until(/^\{"type": 1\} für 2 €$/m)
  expect(terminal.received.every(({ isBinary }) => !isBinary)).toBe(true)
  terminal.resize({ cols: 100, rows: 30 })
})

test('text that is no control message closes a terminal of lap.tty.v1, a frame that is too large any', async () => {
  const talking = await session.open()
  talking.socket.send('hello')
  expect(await talking.closed).toMatchObject({ code: 1008 })
  const pasting = await session.open()
  pasting.type(Buffer.alloc(2 * 1024 * 1024, 'x'))
  expect(await pasting.closed).toMatchObject({ code: 1009 })
})

test('typing is activity; opening a terminal, looking on, and what a terminal says by itself are none', async () => {
  const own = await buildTerminalSession(api)
  await age(own.id)
  await using terminal = await own.open()
  await terminal.until(/\$ $/)
  terminal.resize({ cols: 90, rows: 30 })
  terminal.type('\u001b[I')
  terminal.type('\u001b[<35;10;10M')
  await using second = await own.open()
  await second.until(/10M$/)
  expect(await activity(own.id)).toBeLessThan(anHourAgo())
  terminal.type('ls\r')
  while ((await activity(own.id)) < anHourAgo()) await sleep(10)
  // It is not written down with every key.
  await age(own.id)
  for (const key of 'echo many keys\r') terminal.type(key)
  await terminal.until(/^many keys$/m)
  expect(await activity(own.id)).toBeLessThan(anHourAgo())
})

test('a client that reads nothing holds nobody up: it skips to the screen as it is then', async () => {
  const own = await buildTerminalSession(api)
  await using slow = await own.open({ blind: true })
  slow.socket.pause()
  await using quick = await own.open({ blind: true })
  quick.type('base64 -w 99 /dev/zero | head -c 60000000; echo; echo the e""nd\r')
  const last = (each: typeof quick): string =>
    Buffer.concat(each.received.slice(-10).map(({ bytes }) => bytes)).toString()
  while (!last(quick).includes('the end')) {
    await sleep(10)
  }
  slow.socket.resume()
  while (!last(slow).includes('the end')) await sleep(10)
  expect(slow.received.reduce((sum, { bytes }) => sum + bytes.length, 0)).toBeLessThan(30_000_000)
}, 600_000)

test('a session that ends closes its terminals and says why', async () => {
  const own = await buildTerminalSession(api)
  await using terminal = await own.open()
  await terminal.until(/\$ $/)
  await api.call('DELETE', `/sessions/${own.id}`)
  expect(await terminal.closed).toEqual({ code: 4410, reason: 'deleted' })
})

test('a sandbox that is gone closes the terminal with the code to come back', async () => {
  const own = await buildTerminalSession(api)
  await using terminal = await own.open()
  await terminal.until(/\$ $/)
  await api.driver.remove(own.sandbox.name)
  expect(await terminal.closed).toMatchObject({ code: 1012, reason: expect.stringContaining('open it again') })
})

test('a server that drains says to come back, and whoever comes back sees the same screen', async () => {
  const replica = await startServer(api.deps, { host: '127.0.0.1', port: 0 })
  const terminal = await session.open({}, replica.url)
  terminal.type('clear; printf "\\033[32mstill here\\033[0m\\n"\r')
  await terminal.until(/^still here\n\$ $/m)
  const [seen, cursor] = [terminal.screen(), terminal.cursor()]
  const scraped = await api.deps.metrics.scrape()
  expect(scraped).toContain('terminals_open 1\n')
  await replica.drain()
  expect(await terminal.closed).toMatchObject({ code: 1012 })
  await using again = await session.open()
  await again.until(/^still here\n\$ $/m)
  expect(again.screen()).toEqual(seen)
  expect(again.cursor()).toEqual(cursor)
})

test('a client that vanishes leaves nothing open', async () => {
  const terminal = await session.open()
  terminal.socket.terminate()
  await once(terminal.socket, 'close').catch(() => undefined)
  for (let open = ''; !open.includes('terminals_open 0\n'); await sleep(10)) open = await api.deps.metrics.scrape()
})
