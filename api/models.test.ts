import { once } from 'node:events'
import { createServer } from 'node:http'
import type { RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, test } from '@jest/globals'
import { GATEWAY_KEY, startTestApi } from '../test/api.ts'
import type { Failure } from '../test/api.ts'

const startGateway = async (answer: RequestListener): Promise<AsyncDisposable & { url: string }> => {
  const server = createServer(answer)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

test('the gateway’s list of models, asked for with its key, and kept', async () => {
  const asked: (string | undefined)[] = []
  const list = { object: 'list', data: [{ id: 'demo', owned_by: 'lap' }] }
  await using gateway = await startGateway((req, res) => {
    asked.push(`${req.url} ${req.headers.authorization}`)
    res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(list))
  })
  await using api = await startTestApi({ env: { LITELLM_API_BASE: `${gateway.url}/v1/` } })
  const answers = await Promise.all([1, 2, 3].map(() => api.call('GET', '/api/v1/models')))
  for (const answer of [...answers, await api.call('GET', '/api/v1/models')])
    expect(answer).toMatchObject({ status: 200, body: list })
  expect(asked).toEqual([`/v1/models Bearer ${GATEWAY_KEY}`])
})

test('a gateway that fails is 502 with what it did, and is asked again', async () => {
  let state: 'error' | 'nonsense' | 'well' = 'error'
  await using gateway = await startGateway((_req, res) => {
    if (state === 'error') res.writeHead(401).end('no')
    else res.writeHead(200).end(state === 'well' ? '{"data":[]}' : '<html>')
  })
  await using api = await startTestApi({ env: { LITELLM_API_BASE: gateway.url } })
  const models = () => api.call<Failure>('GET', '/api/v1/models')
  expect(await models()).toMatchObject({
    status: 502,
    body: { code: 'upstream', error: expect.stringContaining('401') },
  })
  state = 'nonsense'
  expect(await models()).toMatchObject({ status: 502, body: { code: 'upstream' } })
  state = 'well'
  expect(await models()).toMatchObject({ status: 200, body: { data: [] } })
})

test('a gateway that is not there is 502, and its key is in no answer and no log line', async () => {
  await using api = await startTestApi({ env: { LITELLM_API_BASE: 'http://127.0.0.1:9' } })
  const answer = await api.call<Failure>('GET', '/api/v1/models')
  expect(answer).toMatchObject({ status: 502, body: { error: expect.stringContaining('cannot be reached') } })
  expect(JSON.stringify([answer.body, api.logged])).not.toContain(GATEWAY_KEY)
})
