import { expect, test } from '@jest/globals'
import { Webhook } from 'standardwebhooks'
import { newSecret, signedHeaders } from './signature.ts'

const body = JSON.stringify({
  type: 'turn.finished',
  timestamp: '2026-11-30T09:00:00.000Z',
  data: { title: 'Grüße 👋' },
})
const message = { id: 'a1b2', body }

test('the official library verifies what is signed', () => {
  const secret = newSecret()
  const headers = signedHeaders(message, [secret], new Date())
  expect(new Webhook(secret).verify(body, headers)).toEqual(JSON.parse(body))
})

test('after a rotation receivers with the old secret and with the new one both verify', () => {
  const [old, fresh] = [newSecret(), newSecret()]
  const headers = signedHeaders(message, [fresh, old], new Date())
  for (const secret of [old, fresh]) expect(new Webhook(secret).verify(body, headers)).toEqual(JSON.parse(body))
  expect(() => new Webhook(newSecret()).verify(body, headers)).toThrow()
})

test.each<[string, Partial<Record<string, string>>, string]>([
  ['another id', { 'webhook-id': 'c3d4' }, body],
  ['another time', { 'webhook-timestamp': String(Math.floor(Date.now() / 1_000) - 10) }, body],
  ['another body', {}, body.replace('turn.finished', 'session.ended')],
])('%s is not verified', (_, changed, sent) => {
  const secret = newSecret()
  const headers = { ...signedHeaders(message, [secret], new Date()), ...changed } as Record<string, string>
  expect(() => new Webhook(secret).verify(sent, headers)).toThrow()
})

test('a try that was recorded long ago is not verified: each try has its own time', () => {
  const secret = newSecret()
  const old = signedHeaders(message, [secret], new Date(Date.now() - 3_600_000))
  expect(() => new Webhook(secret).verify(body, old)).toThrow(/too old/)
})

test('secrets are 32 random bytes behind their prefix, and the signature is that of the specification', () => {
  const secret = newSecret()
  expect(secret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/)
  expect(newSecret()).not.toBe(secret)
  const at = new Date()
  expect(signedHeaders(message, [secret], at)).toEqual({
    'webhook-id': 'a1b2',
    'webhook-timestamp': String(Math.floor(at.getTime() / 1_000)),
    'webhook-signature': new Webhook(secret).sign('a1b2', at, body),
  })
})
