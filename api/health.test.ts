import { expect, test } from '@jest/globals'
import { createDatabase } from '../db/database.ts'
import { startTestApi } from '../test/api.ts'
import type { TestApi } from '../test/api.ts'
import { testTemporalAddress } from '../test/temporal.ts'

const open = (api: TestApi, path: string) => api.call('GET', path, { headers: { authorization: '' } })

test('without Temporal the process lives, serves, and says what is missing', async () => {
  await using api = await startTestApi()
  expect(await open(api, '/healthz')).toMatchObject({ status: 200, body: { status: 'ok' } })
  expect(await open(api, '/readyz')).toMatchObject({
    status: 200,
    body: { status: 'degraded', postgres: { ok: true }, migrations: { ok: true }, temporal: { ok: false } },
  })
  expect(await api.call('GET', '/api/v1/health/k8s')).toMatchObject({
    status: 503,
    body: { ok: false, driver: 'local', workers: 0, error: expect.stringContaining('Temporal') },
  })
  expect((await open(api, '/api/v1/health/k8s')).status).toBe(401)
})

test('with everything there it is ready; sandboxes need a worker, and there is none', async () => {
  await using api = await startTestApi({ env: { TEMPORAL_ADDRESS: testTemporalAddress(), TEMPORAL_NAMESPACE: 'lap' } })
  expect(await open(api, '/readyz')).toMatchObject({ status: 200, body: { status: 'ready', temporal: { ok: true } } })
})

test('a database that is gone or has an older schema makes it not ready, alive all the same', async () => {
  await using api = await startTestApi()
  await api.deps.sql.query('alter table lap_migration rename to hidden')
  const outdated = await open(api, '/readyz')
  expect(outdated).toMatchObject({ status: 503, body: { status: 'not_ready', postgres: { ok: true } } })
  expect(JSON.stringify(outdated.body)).toContain('run bin/migrate.ts')
  await using gone = await createDatabase({ url: 'postgresql://nobody@127.0.0.1:9/nothing', applicationName: 'test' })
  const { query } = api.deps.sql
  api.deps.sql.query = gone.sql.query
  try {
    expect(await open(api, '/readyz')).toMatchObject({
      status: 503,
      body: { status: 'not_ready', postgres: { ok: false, error: 'The database cannot be reached' } },
    })
    expect((await open(api, '/healthz')).status).toBe(200)
    expect(await api.call('GET', '/agents')).toMatchObject({ status: 503, body: { code: 'unavailable' } })
  } finally {
    api.deps.sql.query = query
  }
})
