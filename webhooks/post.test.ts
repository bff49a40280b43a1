import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { webhookAnswerKeptChars } from '../domain/limits.ts'
import { startReceiver, status } from '../test/receiver.ts'
import type { Answer, Receiver } from '../test/receiver.ts'
import { createAuthority } from '../tools/cluster/certificates.ts'
import { createSender } from './post.ts'

let receiver: Receiver
beforeAll(async () => {
  receiver = await startReceiver()
})
afterAll(async () => receiver[Symbol.asyncDispose]())

const open = createSender({ allowPrivate: true })
const hasty = createSender({ allowPrivate: true, timeoutMs: 300 })
const closed = createSender({ allowPrivate: false })

const never = new AbortController().signal
const post = (sender = open, url = receiver.url) =>
  sender.post({
    url,
    headers: { 'content-type': 'application/json', 'webhook-id': 'm1' },
    body: '{"a":1}',
    signal: never,
  })
const against = (how: Answer, sender = open) => {
  receiver.answer(how)
  return post(sender)
}

test('a receiver gets the body and the headers as they are, and a 2xx is a success', async () => {
  const outcome = await against(status(202))
  expect(outcome).toEqual({ result: 'success', statusCode: 202, error: null, response: null, retryAfterMs: null })
  expect(receiver.received.at(-1)).toMatchObject({
    body: '{"a":1}',
    headers: { 'webhook-id': 'm1', 'content-type': 'application/json', 'content-length': '7' },
  })
})

test('a 2xx is a success whatever becomes of the rest of the answer', async () => {
  const endless: Answer = (response) => {
    response.writeHead(200)
    response.write('x')
  }
  expect(await against(endless, hasty)).toMatchObject({ result: 'success', statusCode: 200 })
  const broken: Answer = (response) => {
    response.writeHead(200, { 'content-length': '100' })
    response.write('x', () => response.destroy())
  }
  expect(await against(broken)).toMatchObject({ result: 'success', statusCode: 200 })
})

test.each([400, 404, 410, 500])('%i is a failure, with the begin of what the receiver says', async (code) => {
  expect(await against(status(code, {}, ` because ${'x'.repeat(2_000)}`))).toEqual({
    result: 'status',
    statusCode: code,
    error: `The receiver answered ${code}`,
    response: ` because ${'x'.repeat(2_000)}`.slice(0, webhookAnswerKeptChars).trim(),
    retryAfterMs: null,
  })
})

test('an answer without end is not read to its end', async () => {
  let sent = 0
  const flood: Answer = (response) => {
    response.writeHead(500)
    const more = (): void => {
      while (!response.destroyed && response.write('y'.repeat(64 * 1_024))) sent += 64 * 1_024
    }
    response.on('drain', more)
    more()
  }
  const outcome = await against(flood)
  expect(outcome).toMatchObject({ statusCode: 500, response: 'y'.repeat(webhookAnswerKeptChars) })
  expect(sent).toBeLessThan(64 * 1_024 * 1_024)
})

test('a redirect is not followed, and said to be one', async () => {
  const before = receiver.received.length
  const outcome = await against(status(302, { location: `${receiver.url}/elsewhere` }))
  expect(outcome).toMatchObject({
    result: 'status',
    statusCode: 302,
    error: expect.stringContaining('redirects are not followed'),
  })
  expect(receiver.received.length).toBe(before + 1)
})

test.each<[number, string, number | null]>([
  [429, '7', 7_000],
  [503, '90', 90_000],
  [500, '7', null],
  [503, 'whenever', null],
])('%i with Retry-After %s is waited for %j ms', async (code, value, retryAfterMs) => {
  expect(await against(status(code, { 'retry-after': value }))).toMatchObject({ statusCode: code, retryAfterMs })
})

test('a receiver that says nothing has its time, and no more', async () => {
  expect(await against(() => {}, hasty)).toEqual({
    result: 'timeout',
    statusCode: null,
    error: 'The receiver did not answer within 0.3 s',
    response: null,
    retryAfterMs: null,
  })
})

test('so has one that says nothing after the begin of an error', async () => {
  const half: Answer = (response) => void response.writeHead(500).write('half')
  expect(await against(half, hasty)).toMatchObject({ result: 'status', statusCode: 500, response: 'half' })
})

test('a receiver that hangs up, speaks no HTTP or is not there cannot be reached', async () => {
  expect(await against((response) => response.destroy())).toMatchObject({ result: 'connection', statusCode: null })
  const babbling = createServer((socket) => socket.resume().end('220 mail.example.com ESMTP\r\n')).listen(
    0,
    '127.0.0.1',
  )
  await once(babbling, 'listening')
  const { port } = babbling.address() as AddressInfo
  expect(await post(open, `http://127.0.0.1:${port}`)).toMatchObject({ result: 'connection' })
  await new Promise((resolve) => babbling.close(resolve))
  expect(await post(open, `http://127.0.0.1:${port}`)).toMatchObject({
    result: 'connection',
    error: expect.stringContaining('ECONNREFUSED'),
  })
})

test('a certificate that nobody trusts is no receiver', async () => {
  const { key, certificate: cert } = createAuthority('nobody').issue({ commonName: 'receiver' }, ['127.0.0.1'])
  await using stranger = await startReceiver({ tls: { key, cert } })
  expect(await post(open, stranger.url)).toMatchObject({
    result: 'connection',
    error: expect.stringMatching(/certificate/),
  })
  expect(stranger.received).toEqual([])
})

test('when nobody waits for it any more a try says so, and is no failure of the receiver', async () => {
  receiver.answer(() => {})
  const stopped = new AbortController()
  const asked = receiver.received.length
  const tried = open.post({ url: receiver.url, headers: {}, body: '{}', signal: stopped.signal })
  const outcome = expect(tried).rejects.toThrow('the worker ends')
  while (receiver.received.length === asked) await new Promise((resolve) => setTimeout(resolve, 5))
  stopped.abort(new Error('the worker ends'))
  await outcome
})

test.each([
  'https://127.0.0.1/',
  'https://[::1]/',
  'https://[::ffff:127.0.0.1]/',
  'https://169.254.169.254/latest/meta-data/',
  'https://10.1.2.3/',
  'https://2130706433/',
  'https://0x7f.1/',
  'https://localhost/',
])('%s is refused, with the setting that would allow it', async (url) => {
  const outcome = await post(closed, url)
  expect(outcome).toMatchObject({ result: 'refused', statusCode: null, retryAfterMs: null })
  expect(outcome.error).toMatch(/^Not sent: .* not public; only public addresses .*WEBHOOK_ALLOW_PRIVATE_TARGETS/)
})

test('so is a receiver without TLS', async () => {
  const before = receiver.received.length
  expect(await post(closed)).toMatchObject({ result: 'refused', error: expect.stringContaining('only https') })
  expect(receiver.received.length).toBe(before)
})

type Family = 4 | 6
const resolving = (...addresses: string[]) => {
  const asked: string[] = []
  const resolve = (
    name: string,
    _: object,
    done: (error: null, found: { address: string; family: Family }[]) => void,
  ): void => {
    asked.push(name)
    done(
      null,
      addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })),
    )
  }
  return { asked, sender: createSender({ allowPrivate: false, resolve, timeoutMs: 2_000 }) }
}

test.each([[['127.0.0.1']], [['8.8.8.8', '10.0.0.7']], [['fd00::1']]])(
  'a name that is %j is refused at the moment of the connection, and nothing is sent',
  async (addresses) => {
    const before = receiver.received.length
    const { asked, sender } = resolving(...addresses)
    const { port } = new URL(receiver.url)
    const outcome = await post(sender, `https://rebound.example.com:${port}/`)
    expect(outcome).toMatchObject({
      result: 'refused',
      error: expect.stringMatching(/^Not sent: rebound\.example\.com is .*, not public/),
    })
    expect(asked).toEqual(['rebound.example.com'])
    expect(receiver.received.length).toBe(before)
  },
)

test('a name without an address cannot be reached', async () => {
  const { sender } = resolving()
  expect(await post(sender, 'https://nowhere.example.com/')).toMatchObject({
    result: 'connection',
    error: expect.stringContaining('nowhere.example.com has no address'),
  })
})
