import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { bodyMaxBytes } from '../domain/limits.ts'
import { startTestApi, TEST_MASTER_KEY } from '../test/api.ts'
import type { Failure, TestApi } from '../test/api.ts'

let api: TestApi
beforeAll(async () => {
  api = await startTestApi()
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
})

test.each(['', 'Bearer', 'Bearer wrong', `Basic ${TEST_MASTER_KEY}`, TEST_MASTER_KEY, `Bearer ${TEST_MASTER_KEY}x`])(
  'the authorization "%s" is 401',
  async (authorization) => {
    const answer = await api.call<Failure>('GET', '/agents', { headers: { authorization } })
    expect(answer.status).toBe(401)
    expect(answer.body.code).toBe('unauthorized')
    expect(answer.headers.get('www-authenticate')).toBe('Bearer')
  },
)

test('a body that is not JSON is 400, whatever its type says', async () => {
  const answer = await api.call<Failure>('POST', '/agents', { body: '{"model": ' })
  expect(answer).toMatchObject({ status: 400, body: { code: 'bad_request' } })
})

test.each(['[]', '"x"', '1'])('the body %s is 422', async (body) => {
  expect(await api.call<Failure>('POST', '/agents', { body })).toMatchObject({ status: 422, body: { code: 'invalid' } })
})

test('a body that is too large is 413', async () => {
  const body = { model: 'm', prompt: 'x'.repeat(bodyMaxBytes) }
  expect(await api.call<Failure>('POST', '/agents', { body })).toMatchObject({
    status: 413,
    body: { code: 'too_large' },
  })
})

test.each(['/', '/api', '/api/v1/nothing', '/api/v1/managed_agents/agents/x/skill', '/metrics'])(
  '%s is our 404',
  async (path) => {
    const response = await fetch(`${api.url}${path}`)
    expect(response.status).toBe(404)
    expect(await response.json()).toMatchObject({ code: 'not_found' })
  },
)

test('another method on a known path is 405 and names the right ones', async () => {
  const answer = await api.call<Failure>('PUT', '/agents')
  expect(answer).toMatchObject({ status: 405, body: { code: 'method_not_allowed' } })
  expect(answer.headers.get('allow')).toBe('POST, GET')
})

test('every answer names its request, with the caller’s id when that is harmless', async () => {
  const own = await api.call<Failure>('GET', '/agents/x', { headers: { 'x-request-id': 'abc-1' } })
  expect([own.headers.get('x-request-id'), own.body.request_id]).toEqual(['abc-1', 'abc-1'])
  const bad = await api.call<Failure>('GET', '/agents/x', { headers: { 'x-request-id': 'a b"c' } })
  expect(bad.body.request_id).toMatch(/^[0-9a-f-]{36}$/)
  expect(api.logged.some((line) => line.includes('"request_id":"abc-1"'))).toBe(true)
})

test('a fault of ours is "Internal error" to the user and the whole story in the log', async () => {
  const { query } = api.deps.sql
  api.deps.sql.query = () => Promise.reject(new Error('secret detail of the inside'))
  try {
    const answer = await api.call<Failure>('GET', '/sessions')
    expect(answer).toMatchObject({ status: 500, body: { error: 'Internal error', code: 'internal' } })
    expect(api.logged.join('\n')).toContain('secret detail of the inside')
  } finally {
    api.deps.sql.query = query
  }
})

test('a request’s line in the log says whom it was about', async () => {
  const id = '11111111-1111-4111-8111-111111111111'
  await api.call('GET', `/sessions/${id}`, { headers: { 'x-request-id': 'about-a-session' } })
  await api.call('GET', `/agents/${id}`, { headers: { 'x-request-id': 'about-an-agent' } })
  const lineOf = (request: string) => api.logged.find((line) => line.includes(request) && line.includes('"route"'))
  expect(lineOf('about-a-session')).toContain(`"session_id":"${id}"`)
  expect(lineOf('about-an-agent')).toContain(`"agent_id":"${id}"`)
})
