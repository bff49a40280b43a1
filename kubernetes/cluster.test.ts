import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from '@jest/globals'
import { SILENCE, startScriptedCluster } from '../test/scripted-cluster.ts'
import { createCluster } from './cluster.ts'
import type { PodSettings } from './manifest.ts'

test('nodes that may be read only later are watched from then on, and what was lost with one is told', async () => {
  await using scripted = await startScriptedCluster()
  const pod = { metadata: { name: 'lap-1' }, spec: { nodeName: 'n1' } }
  const listed = (path: string, items: object[]): void => {
    const list = { metadata: { resourceVersion: '1' }, items }
    scripted.answers.set(path, ({ url }) => (url?.includes('watch=true') === true ? SILENCE : list))
  }
  listed('/api/v1/namespaces/sandboxes/pods', [pod])
  listed('/api/v1/nodes', [])
  const ending = new AbortController()
  const cluster = createCluster({
    client: scripted.client,
    settings: { api: 'pod', namespace: 'sandboxes', instance: 'lap' } as PodSettings,
    access: { by: 'pod-ip' },
    mayReadNodes: false,
    signal: ending.signal,
  })
  await cluster.synced()
  const told: string[] = []
  cluster.onChange((name) => told.push(name))
  expect(cluster.seen('lap-1')).toMatchObject({ nodesKnown: false })
  cluster.readNodes()
  cluster.readNodes()
  await cluster.synced()
  while (told.length === 0) await sleep(10)
  expect(told).toEqual(['lap-1'])
  expect(cluster.seen('lap-1')).toMatchObject({ pod, node: undefined, nodesKnown: true })
  expect(scripted.asked.filter((asked) => /nodes.*limit/.test(asked))).toHaveLength(1)
  ending.abort()
})
