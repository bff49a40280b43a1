import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { WEBHOOK_EVENTS } from '../domain/webhook.ts'
import { startTestApi } from '../test/api.ts'
import type { TestApi } from '../test/api.ts'
import { routeTable } from './app.ts'

type Operation = {
  operationId: string
  security?: unknown[]
  parameters: { name: string; in: string }[]
  responses: Record<string, { content?: Record<string, { schema: unknown }> }>
}
type Document = {
  openapi: string
  paths: Record<string, Record<string, Operation>>
  webhooks: Record<string, { post: { requestBody: { content: Record<string, { schema: unknown }> } } }>
  components: { schemas: Record<string, unknown> }
}

let api: TestApi
let document: Document
beforeAll(async () => {
  api = await startTestApi()
  document = (await api.call<Document>('GET', '/openapi.json', { headers: { authorization: '' } })).body
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
})

const operations = () =>
  Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ path, method, operation })),
  )

test('every route that is answered is in the document, and the other way round', () => {
  const served = routeTable({ ...api.deps, drain: AbortSignal.abort() }).map(
    ({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}`,
  )
  expect(
    operations()
      .map(({ method, path }) => `${method} ${path}`)
      .toSorted(),
  ).toEqual(served.toSorted())
})

test('every documented path is answered by a handler: nothing is a 404 of an unknown path', async () => {
  for (const { path, method } of operations()) {
    const { body } = await api.call<{ error?: string }>(method.toUpperCase(), path.replaceAll(/\{\w+\}/g, 'x'))
    expect({ path, error: body.error ?? '' }).not.toMatchObject({ error: expect.stringContaining('no such path') })
  }
})

test('everything but health and this document asks for the key, and the document says which', async () => {
  for (const { path, method, operation } of operations()) {
    const url = `${api.url}${path.replaceAll(/\{\w+\}/g, 'x')}`
    const { status } = await fetch(url, { method: method.toUpperCase() })
    expect({ path, open: status !== 401 }).toEqual({ path, open: operation.security?.length === 0 })
  }
})

test('every operation has an id of its own, its parameters, and its errors in the one shape', () => {
  const ids = operations().map(({ operation }) => operation.operationId)
  expect(new Set(ids).size).toBe(ids.length)
  for (const { path, operation } of operations()) {
    const inPath = operation.parameters.filter((parameter) => parameter.in === 'path').map(({ name }) => `{${name}}`)
    expect(path.match(/\{\w+\}/g) ?? []).toEqual(inPath)
    if (path === '/readyz' || path === '/api/v1/health/k8s') continue
    const failures = Object.entries(operation.responses).filter(([status]) => Number(status) >= 400)
    expect(failures.length).toBeGreaterThan(0)
    for (const [, failure] of failures)
      expect(failure.content?.['application/json']?.schema).toEqual({ $ref: '#/components/schemas/Error' })
  }
})

test('every reference leads somewhere, and every component is used', () => {
  const text = JSON.stringify(document)
  const used = new Set([...text.matchAll(/"#\/components\/schemas\/(\w+)"/g)].map(([, name]) => name))
  expect(used).toEqual(new Set(Object.keys(document.components.schemas)))
})

test('what webhooks are told is in the document, one schema an event', () => {
  expect(Object.keys(document.webhooks)).toEqual([...WEBHOOK_EVENTS])
  for (const { post } of Object.values(document.webhooks))
    expect(post.requestBody.content['application/json']?.schema).toEqual({
      $ref: expect.stringMatching(/^#\/components\/schemas\/Webhook\w+$/),
    })
})

test('what a request may hold is said with its limits', () => {
  expect(document.components.schemas['AgentCreate']).toMatchObject({
    type: 'object',
    required: ['model'],
    additionalProperties: false,
    properties: {
      env_vars: { $ref: '#/components/schemas/EnvVars' },
      preload_memory_limit: { minimum: 0, maximum: 50 },
    },
  })
})
