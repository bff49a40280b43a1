import { z } from 'zod'
import type { ErrorCode } from '../domain/errors.ts'
import { STATUS_OF } from './middleware/errors.ts'
import { IdempotencyKey } from './route.ts'
import type { Route } from './route.ts'
import { ErrorBody } from './schemas/common.ts'
import { WEBHOOK_PAYLOADS } from './schemas/webhook-payload.ts'

type Json = Record<string, unknown>

const REF = '#/components/schemas/'

/** A schema with an id is named where it is used; the components hold it once. */
const schemaOf = (schema: z.ZodType): Json => {
  const id = z.globalRegistry.get(schema)?.id
  if (id !== undefined) return { $ref: `${REF}${id}` }
  const { $schema: _, ...json } = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as Json
  return json
}

const components = (): Json => {
  const { schemas } = z.toJSONSchema(z.globalRegistry, {
    uri: (id) => `${REF}${id}`,
    io: 'input',
    unrepresentable: 'any',
  })
  return Object.fromEntries(
    Object.entries(schemas).map(([id, { $schema: _schema, $id: _id, ...schema }]: [string, Json]) => [id, schema]),
  )
}

const DESCRIPTIONS: Record<ErrorCode, string> = {
  bad_request: 'The body is not JSON.',
  unauthorized: 'The master key is missing or wrong.',
  not_found: 'There is no such thing.',
  conflict: 'Not possible in this state, or an Idempotency-Key used for something else.',
  gone: 'The session has ended.',
  too_large: 'The body is too large.',
  invalid: 'Fields are wrong or unknown; `details` has the path and the remedy of each.',
  rate_limited: 'Full; come back after `Retry-After`.',
  upstream: 'The gateway or the harness failed.',
  unavailable: 'Something the answer needs is down; the message says what.',
  internal: 'A fault of the platform, with its details in the log under the request id.',
}

const errorsOf = (route: Route): ErrorCode[] => {
  const codes = new Set<ErrorCode>(['internal', 'unavailable', ...(route.errors ?? [])])
  if (route.open === undefined) codes.add('unauthorized')
  if (route.query !== undefined || route.body !== undefined || route.idempotent) codes.add('invalid')
  if (route.body !== undefined) codes.add('bad_request').add('too_large')
  return [...codes]
}

const EVERY_REPLY = { 'X-Request-Id': 'The request’s own when it had a harmless one; also in errors and log lines.' }
const IDEMPOTENT_REPLY = {
  'Idempotent-Replayed': '`true`: the key was known, and this is the result of the first request.',
}

const headersOf = (headers: Record<string, string>): Json =>
  Object.fromEntries(
    Object.entries(headers).map(([name, description]) => [name, { description, schema: { type: 'string' } }]),
  )

const responsesOf = (route: Route): Json => {
  const responses: Json = {}
  for (const code of errorsOf(route))
    responses[STATUS_OF[code]] = {
      description: DESCRIPTIONS[code],
      ...(code === 'rate_limited'
        ? { headers: { 'Retry-After': { description: 'Seconds', schema: { type: 'integer' } } } }
        : {}),
      content: { 'application/json': { schema: schemaOf(ErrorBody) } },
    }
  for (const { status, description, schema, contentType = 'application/json', headers = {} } of route.replies) {
    const content = schema === undefined ? { type: 'string' } : schemaOf(schema)
    const empty = schema === undefined && contentType === 'application/json'
    responses[status] = {
      description,
      headers: headersOf({ ...EVERY_REPLY, ...(route.idempotent ? IDEMPOTENT_REPLY : {}), ...headers }),
      ...(empty ? {} : { content: { [contentType]: { schema: content } } }),
    }
  }
  return responses
}

const parametersOf = (route: Route): Json[] => {
  const parameters: Json[] = [...route.path.matchAll(/:(\w+)/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string', format: 'uuid' },
  }))
  for (const [name, schema] of Object.entries(route.query?.shape ?? {})) {
    const { description, ...json } = schemaOf(schema as z.ZodType)
    parameters.push({
      name,
      in: 'query',
      required: false,
      ...(description === undefined ? {} : { description }),
      schema: json,
    })
  }
  if (route.idempotent)
    parameters.push({
      name: 'Idempotency-Key',
      in: 'header',
      required: false,
      description: 'Repeating a request with the same key and body gives the first one’s result.',
      schema: schemaOf(IdempotencyKey),
    })
  return parameters
}

const operationOf = (route: Route): Json => ({
  operationId: route.operationId,
  tags: [route.tag],
  summary: route.summary,
  ...(route.description === undefined ? {} : { description: route.description }),
  ...(route.open === undefined ? {} : { security: [] }),
  parameters: parametersOf(route),
  ...(route.body === undefined
    ? {}
    : {
        requestBody: {
          required: !route.body.safeParse({}).success,
          content: { 'application/json': { schema: schemaOf(route.body) } },
        },
      }),
  responses: responsesOf(route),
})

const SENT_HEADERS = {
  'webhook-id': 'Id of the delivery, the same with each try: what was seen before need not be done again.',
  'webhook-timestamp': 'Seconds since 1970, of the try.',
  'webhook-signature':
    '`v1,` and base64 of HMAC-SHA256 over id, timestamp and body, joined by full stops; several, separated by spaces, after a rotation.',
}

/** What receivers of webhooks get. */
const webhooks = (): Json =>
  Object.fromEntries(
    Object.entries(WEBHOOK_PAYLOADS).map(([type, { summary, schema }]) => [
      type,
      {
        post: {
          operationId: `on_${type.replaceAll('.', '_')}`,
          tags: ['webhooks'],
          summary,
          security: [],
          parameters: Object.entries(SENT_HEADERS).map(([name, description]) => ({
            name,
            in: 'header',
            required: true,
            description,
            schema: { type: 'string' },
          })),
          requestBody: { required: true, content: { 'application/json': { schema: schemaOf(schema) } } },
          responses: { '2XX': { description: 'Taken. Anything else is tried again; 410 disables the webhook.' } },
        },
      },
    ]),
  )

/** The OpenAPI 3.1 document of exactly the routes that are served, from the schemas that validate them. */
export const openApi = (routes: Route[], baseUrl: string): Json => {
  const paths: Record<string, Json> = {}
  for (const route of routes) {
    const path = route.path.replaceAll(/:(\w+)/g, '{$1}')
    paths[path] = { ...paths[path], [route.method]: operationOf(route) }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'LAP',
      version: '1',
      description:
        'Coding-agent sessions in sandboxes, from a warm pool. Errors have one shape, `Error`; each names its request.',
    },
    servers: [{ url: baseUrl }],
    security: [{ masterKey: [] }],
    paths,
    webhooks: webhooks(),
    components: {
      securitySchemes: { masterKey: { type: 'http', scheme: 'bearer', description: 'MASTER_KEY' } },
      schemas: components(),
    },
  }
}
