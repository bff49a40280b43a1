import { expect, test } from '@jest/globals'
import { SILENCE } from '../test/scripted-cluster.ts'
import { eachInspected, inspectorOf, SANDBOXES } from '../test/scripted-inspector.ts'

const own = eachInspected()

test('a cluster with all that is needed is well; it is asked once for all who ask at a time, and for one object only', async () => {
  const all = await Promise.all(Array.from({ length: 20 }, () => own.inspector.health()))
  expect(all).toEqual(Array.from({ length: 20 }, () => ({ ok: true, problems: [], warnings: [] })))
  const lists = own.cluster.asked.filter((what) => what.startsWith(`GET ${SANDBOXES}`))
  expect(lists).toEqual([`GET ${SANDBOXES}?limit=1`])
})

test('a missing kind is named with its remedy', async () => {
  own.cluster.answers.delete('/apis/agents.x-k8s.io/v1beta1')
  own.cluster.answers.delete(SANDBOXES)
  expect(await own.inspector.health()).toMatchObject({
    ok: false,
    problems: [
      {
        what: expect.stringContaining('agents.x-k8s.io/v1beta1'),
        remedy: expect.stringMatching(/Install agent-sandbox.*K8S_SANDBOX_API=pod/),
      },
    ],
  })
})

test('missing rights are named one by one; those it can do without are warnings', async () => {
  own.cluster.denied.add('get pods').add('get nodes *').add('list pods *').add('get pods/log')
  expect(await own.inspector.health()).toMatchObject({
    ok: false,
    problems: [
      { what: 'Rights are missing in namespace sandboxes: get pods.', remedy: expect.stringContaining('Role') },
    ],
    warnings: [{ what: expect.stringContaining('get pods/log, get nodes, list pods in all namespaces') }],
  })
  expect(own.cluster.asked.filter((what) => what.startsWith('POST')).length).toBe(9)
})

test('a list that fails for no known reason is a problem of its own', async () => {
  own.cluster.answers.set(SANDBOXES, { refuse: 400, message: 'conversion webhook failed' })
  expect(await own.inspector.health()).toMatchObject({
    ok: false,
    problems: [{ what: expect.any(String), detail: 'conversion webhook failed', remedy: expect.any(String) }],
  })
})

test('rejected credentials, and a silent server, are told in 3 s, without naming the server to everybody', async () => {
  own.cluster.answers.set('/version', { refuse: 401 })
  const rejected = await own.inspector.health()
  expect(rejected).toMatchObject({ ok: false, problems: [{ what: expect.stringContaining('credentials') }] })

  own.cluster.answers.set('/version', SILENCE)
  const startedAt = performance.now()
  const { ok, problems } = await inspectorOf(own.cluster, { access: 'pod-ip' }).health()
  expect(performance.now() - startedAt).toBeLessThan(3_000)
  expect({ ok, problems }).toMatchObject({
    ok: false,
    problems: [{ what: expect.stringContaining('cannot be reached') }],
  })
  expect(problems[0]?.what).not.toContain('127.0.0.1')
  expect(problems[0]?.remedy).not.toContain('127.0.0.1')
  expect(problems[0]?.detail).toContain('127.0.0.1')
})
