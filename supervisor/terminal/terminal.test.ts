import { createHash, randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals'
import { createSupervisorClient } from '../../sandbox/supervisor-client.ts'
import { type ClientOptions, type TerminalClient, openTerminal } from '../../test/terminal/client.ts'
import { MASTER_KEY, type TestSupervisor, bindRequest, isRunning, startSupervisor } from '../../test/supervisor.ts'

jest.setTimeout(120_000)

const client = createSupervisorClient({ masterKey: MASTER_KEY })
const gateway = { url: 'http://127.0.0.1:9', key: 'none' }
let shell: TestSupervisor
beforeAll(async () => {
  shell = startSupervisor({ harness: 'shell', purpose: 'session' })
  await shell.until('booted')
  await client.bind(shell.target, bindRequest(gateway))
}, 60_000)
afterAll(async () => {
  await shell?.[Symbol.asyncDispose]()
  await client[Symbol.asyncDispose]()
})

const open = (options: ClientOptions = {}, query = '', on = shell): Promise<TerminalClient> =>
  openTerminal(`${on.target.endpoint!.replace('http', 'ws')}/tty${query}`, {
    headers: { authorization: `Bearer ${on.token}` },
    ...options,
  })
/** A shell of its own, for what leaves it changed. */
const another = async (): Promise<TestSupervisor> => {
  const started = startSupervisor({ harness: 'shell', purpose: 'session' })
  await started.until('booted')
  await client.bind(started.target, bindRequest(gateway))
  return started
}
const file = (name: string, on = shell): string => path.join(on.dir, 'workspace', name)
/** Resolves when the program has made a file. */
const made = async (name: string, on = shell): Promise<void> => {
  while (!existsSync(file(name, on))) await sleep(5)
}

test('what is typed reaches the program, and what it says is seen', async () => {
  await using terminal = await open()
  terminal.type('echo $((6 * 7)) in $PWD\r')
  await terminal.until(new RegExp(`^42 in ${shell.dir}/workspace$`, 'm'))
})

test('nobody takes a checkpoint of it: what is said in it is not kept', async () => {
  const take = client.takeCheckpoint(shell.target, { maxBytes: 2 ** 20, signal: AbortSignal.timeout(20_000) })
  await expect(take).rejects.toMatchObject({ code: 'conflict', cause: { code: 'no_conversation' } })
})

test('a viewer who comes later sees the same screen: text, colours, cursor, the alternate screen, and what has scrolled away', async () => {
  await using own = await another()
  await using first = await open({}, '', own)
  first.type('seq 1 200; printf "\\033[31mred\\033[0m\\n"\r')
  await first.until(/^red\n\$ $/m)
  await using second = await open({}, '', own)
  await second.until(/^red\n\$ $/m)
  expect(second.screen()).toEqual(first.screen())
  expect(second.everything()).toEqual(first.everything())
  expect(second.everything()).toContain('1')
  expect(second.cursor()).toEqual(first.cursor())
  expect(Buffer.concat(second.received.map(({ bytes }) => bytes)).toString()).toContain('\u001b[31mred')
  first.type(String.raw`printf '\033[?1049h\033[2J\033[5;9Hfull screen\033[?25l\033[?1006h'; read` + '\r')
  await first.until(/^ {8}full screen$/m)
  await using third = await open({}, '', own)
  await third.until(/^ {8}full screen$/m)
  expect(third.isAlternate()).toBe(true)
  expect(third.screen()).toEqual(first.screen())
  expect(third.cursor()).toEqual(first.cursor())
  const told = Buffer.concat(third.received.map(({ bytes }) => bytes)).toString()
  for (const mode of ['\u001b[?25l', '\u001b[?1006h']) expect(told).toContain(mode)
  // And it goes back to where the others go.
  first.type('\r')
  first.type(String.raw`printf '\033[?1049l\033[?25h'` + '\r')
  for (const each of [first, second, third]) await each.until(/^red\n\$ printf .*\n\$ $/m)
  expect(third.everything()).toEqual(first.everything())
})

test('viewers share the program: all see what any of them types', async () => {
  await using first = await open()
  await using second = await open()
  first.type('echo one-$((1 + 1))\r')
  await second.until(/^one-2$/m)
  second.type('echo two-$((1 + 1))\r')
  await first.until(/^two-2$/m)
})

test('the size is that of whoever has changed it last, and all are told', async () => {
  await using first = await open({}, '?cols=90&rows=20')
  await using second = await open()
  first.type('stty size\r')
  await first.until(/^20 90$/m)
  second.resize({ cols: 120, rows: 40 })
  while (!first.notices.some(({ cols }) => cols === 120)) await sleep(5)
  first.type('stty size\r')
  await first.until(/^40 120$/m)
  expect(second.notices.at(-1)).toEqual({ type: 'size', cols: 120, rows: 40 })
  first.resize({ cols: 100, rows: 30 })
  while (second.notices.at(-1)?.['cols'] !== 100) await sleep(5)
})

test('a screen that is narrower than any is as narrow as can be', async () => {
  await using own = await another()
  await using terminal = await open({}, '?cols=1&rows=1', own)
  while (terminal.notices.at(-1)?.['cols'] !== 2) await sleep(5)
  terminal.resize({ cols: 1, rows: 2 })
  while (terminal.notices.at(-1)?.['rows'] !== 2) await sleep(5)
  terminal.type('stty size > narrow\r')
  await made('narrow', own)
  while (readFileSync(file('narrow', own), 'utf8') === '') await sleep(5)
  expect(readFileSync(file('narrow', own), 'utf8')).toBe('2 2\n')
  expect(terminal.notices.at(-1)).toEqual({ type: 'size', cols: 2, rows: 2 })
})

test('bytes arrive as they are, in both directions', async () => {
  await using terminal = await open()
  const all = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
  terminal.type('clear; stty raw -echo; touch raw; head -c 256 > all.bin; stty sane; echo saved\r')
  await made('raw')
  terminal.type(all)
  await terminal.until(/^saved$/m)
  expect(readFileSync(file('all.bin'))).toEqual(all)
  // What comes out is cut behind whole sequences, and is otherwise the same: these bytes begin none.
  const bytes = Buffer.from(all.filter((byte) => byte !== 0x1b))
  const before = terminal.received.length
  terminal.type(`clear; stty raw; tr -d '\\033' < all.bin; stty sane; touch shown; clear; echo sh''own\r`)
  await made('shown')
  await terminal.until(/^shown$/m)
  const told = Buffer.concat(terminal.received.slice(before).map((each) => each.bytes))
  expect(told.includes(bytes)).toBe(true)
  terminal.type('reset; clear\r')
})

test('characters and sequences that are torn on their way are whole for every viewer, also for one who comes in between', async () => {
  await using own = await another()
  await using first = await open({}, '', own)
  const parts = [String.raw`a\xe2\x82`, String.raw`\xac \033[3`, String.raw`2mgreen\033[0m\n`]
  first.type(
    `stty -echo; printf '${parts[0]}'; touch torn; read; printf '${parts[1]}'; touch again; read; printf '${parts[2]}'\r`,
  )
  await made('torn', own)
  await using second = await open({}, '', own)
  await second.until(/a$/m)
  first.type('\r')
  await made('again', own)
  await using third = await open({}, '', own)
  await third.until(/^a€/m)
  first.type('\r')
  for (const each of [first, second, third]) {
    await each.until(/^a€ green\n\$ $/m)
  }
  expect(third.screen()).toEqual(first.screen())
  expect(second.screen()).toEqual(first.screen())
})

test('questions of the program are answered once, however many look on', async () => {
  await using own = await another()
  await using first = await open({}, '', own)
  await using second = await open({}, '', own)
  first.type(
    String.raw`stty -echo; printf '\033[6n\033[c\033]11;?\007'; IFS= read -rs -d c answer; stty echo; printf '%q\n' "$answer"` +
      '\r',
  )
  await first.until(/\\E\[\d+;\d+R\\E\[\?1;2/)
  await second.until(/\\E\[\d+;\d+R\\E\[\?1;2/)
  expect([...first.answers, ...second.answers]).toEqual([])
})

test('a program that ends says so, and is started again by a key or by whoever comes', async () => {
  await using own = await another()
  await using first = await open({}, '', own)
  first.type('exit 3\r')
  await first.until(/\[Shell has ended with 3\. Press a key to start it again\.\]/)
  first.type('\u001b[I')
  first.type('x')
  await first.until(/again\.\]\s*\n\$ $/)
  first.type('echo back\r')
  await first.until(/^back$/m)
  first.type('exit 4\r')
  await first.until(/ended with 4/)
  await using second = await open({}, '', own)
  second.type('echo for all\r')
  await first.until(/^for all$/m)
  expect((await client.health(own.target)).state).toBe('bound')
})

test('what a program had started ends with it when a signal ended it, and else goes on', async () => {
  await using own = await another()
  await using terminal = await open({}, '', own)
  /** Something in a session of its own, as servers and tools are. @returns its process id */
  const detach = async (name: string): Promise<number> => {
    terminal.type(`setsid sh -c 'echo $$ > ${name}.new; mv ${name}.new ${name}; exec sleep 1000' < /dev/null &\r`)
    await made(name, own)
    return Number(readFileSync(file(name, own), 'utf8'))
  }
  await terminal.until(/\$ $/)
  const server = await detach('server')
  terminal.type('exit 3\r')
  await terminal.until(/ended with 3\..*again\.\]$/)
  terminal.type('x')
  await terminal.until(/again\.\]\s*\n\$ $/)
  const [tool, other] = [await detach('tool'), await detach('other')]
  expect([server, tool, other].map(isRunning)).toEqual([true, true, true])
  terminal.type('clear; kill -KILL $$\r')
  await terminal.until(/ended by signal 9\..*again\.\]$/)
  expect([server, tool, other].map(isRunning)).toEqual([true, false, false])
  terminal.type('x')
  await terminal.until(/again\.\]\s*\n\$ $/)
})

test('where a session has lost another sandbox, it says so, and waits for a key', async () => {
  await using own = startSupervisor({ harness: 'shell', purpose: 'session' })
  await own.until('booted')
  await client.bind(own.target, bindRequest(gateway, { moved: true, prompt: 'Be brief.' }))
  await using terminal = await open({}, '', own)
  await terminal.until(/sandbox of this session was lost.*\n?.*Press a key to start Shell\.\]$/)
  terminal.type('\r')
  await terminal.until(/\$ $/)
  terminal.type('echo $SYSTEM_PROMPT\r')
  await terminal.until(/^Be brief\.$/m)
})

test('100 MB for somebody who does not read cost no memory and hold nobody up; it skips to the screen as it is then', async () => {
  await using own = await another()
  await using slow = await open({ blind: true }, '', own)
  slow.socket.pause()
  await using quick = await open({ blind: true }, '', own)
  quick.type('base64 -w 99 /dev/zero | head -c 100000000; touch written; echo; echo the end\r')
  await made('written', own)
  const status = readFileSync(`/proc/${own.process.pid}/status`, 'utf8')
  expect(Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1])).toBeLessThan(400_000)
  slow.socket.resume()
  const last = ({ received }: TerminalClient): string =>
    Buffer.concat(received.slice(-10).map(({ bytes }) => bytes)).toString()
  for (const each of [quick, slow]) while (!last(each).includes('the end')) await sleep(20)
  const bytes = slow.received.reduce((sum, each) => sum + each.bytes.length, 0)
  expect(bytes).toBeLessThan(20_000_000)
  await using late = await open({}, '', own)
  await late.until(/^the end$/m)
}, 600_000)

test('what is typed faster than the program reads waits in the network, not in memory', async () => {
  await using own = await another()
  await using terminal = await open({}, '', own)
  terminal.type('stty raw -echo; touch ready; sleep 1; head -c 20000000 | sha256sum > sum; stty sane; echo done\r')
  await made('ready', own)
  const bytes = randomBytes(20_000_000)
  for (let at = 0; at < bytes.length; at += 500_000) terminal.type(bytes.subarray(at, at + 500_000))
  await terminal.until(/^done$/m)
  const sum = createHash('sha256').update(bytes).digest('hex')
  expect(readFileSync(file('sum', own), 'utf8')).toBe(`${sum}  -\n`)
})

test('nobody comes in without the token, before there is a session, or where there are conversations', async () => {
  await expect(open({ headers: { authorization: 'Bearer wrong' } })).rejects.toMatchObject({ status: 401 })
  await expect(open({ headers: {} })).rejects.toMatchObject({ status: 401 })
  await using unbound = startSupervisor({ harness: 'shell', purpose: 'session' })
  await unbound.until('booted')
  await expect(open({}, '', unbound)).rejects.toMatchObject({ status: 409 })
  await using light = startSupervisor({ harness: 'light', purpose: 'session' })
  await light.until('booted')
  await client.bind(light.target, bindRequest(gateway))
  await expect(open({}, '', light)).rejects.toMatchObject({ status: 404 })
})

test('text that is no control message closes the terminal of who sent it', async () => {
  await using terminal = await open()
  terminal.socket.send('hello')
  expect(await terminal.closed).toMatchObject({ code: 1008 })
  await using other = await open()
  other.socket.send('{"type":"ping"}')
  while (!other.notices.some(({ type }) => type === 'pong')) await sleep(5)
})

test('a sandbox that is ended says to come back', async () => {
  await using own = await another()
  await using terminal = await open({}, '', own)
  await terminal.until(/\$ $/)
  own.process.kill('SIGTERM')
  expect(await terminal.closed).toMatchObject({ code: 1012 })
})

test('one from the pool runs its program before it has a session, and keeps it unless the session tells it what it can only be told at its start', async () => {
  await using warm = startSupervisor({ harness: 'shell' })
  await warm.until('warm')
  const { pid } = (await client.health(warm.target)).harness
  expect(pid).toEqual(expect.any(Number))
  const env = { MARK: 'of the session' }
  await client.bind(warm.target, bindRequest(gateway, { env }))
  expect((await client.health(warm.target)).harness.pid).toBe(pid)
  await using terminal = await open({}, '', warm)
  terminal.type('bash -c \'echo "$MARK"\'\r')
  await terminal.until(/^of the session$/m)

  await using other = startSupervisor({ harness: 'shell' })
  await other.until('warm')
  const before = (await client.health(other.target)).harness.pid
  await client.bind(other.target, bindRequest(gateway, { prompt: 'Be brief.' }))
  expect((await client.health(other.target)).harness.pid).not.toBe(before)
  await using told = await open({}, '', other)
  told.type('echo $SYSTEM_PROMPT $(cat $HOME/told.txt)\r')
  await told.until(/^Be brief\. Be brief\.$/m)
})
