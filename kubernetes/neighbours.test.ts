import { expect, test } from '@jest/globals'
import type { KubeCall } from './client.ts'
import { neighbourProblems } from './neighbours.ts'
import type { NeighbourOptions } from './neighbours.ts'

const settings = { api: 'sandbox', namespace: 'agents', instance: 'lap', installation: 'own-id' } as const

/** Selects as the API server does. */
const clientWith = (...objects: Record<string, string>[]): NeighbourOptions['client'] => ({
  json: async <T>({ query }: KubeCall) => {
    const terms = String(query?.['labelSelector']).split(',')
    const isSelected = (labels: Record<string, string>): boolean =>
      terms.every((term) => {
        const [, key = '', operator = '', value = ''] = /^([^!=]+)(!=|=|)(.*)$/.exec(term) ?? []
        if (operator === '') return key in labels
        return operator === '=' ? labels[key] === value : labels[key] !== value
      })
    return {
      metadata: {},
      items: objects.filter(isSelected).map((labels) => ({ metadata: { name: 'x', labels } })),
    } as T
  },
})

const labels = (instance: string, installation?: string): Record<string, string> => ({
  'app.kubernetes.io/managed-by': 'lap',
  'lap/instance': instance,
  ...(installation === undefined ? {} : { 'lap/installation': installation }),
})

test('its own sandboxes, those of an installation with another instance, and those without an id are no problem', async () => {
  const client = clientWith(labels('lap', 'own-id'), labels('other', 'other-id'), labels('lap'))
  expect(await neighbourProblems({ client, settings })).toEqual([])
})

test('sandboxes of another installation with the same instance are a problem that names K8S_INSTANCE', async () => {
  const client = clientWith(labels('lap', 'other-id'))
  const [problem, ...more] = await neighbourProblems({ client, settings })
  expect(more).toEqual([])
  expect(problem?.what).toMatch(/another installation .* K8S_INSTANCE=lap/i)
  expect(problem?.detail).toContain('other-id')
})

test('its own sandboxes under an earlier instance are a problem, with the command that removes them', async () => {
  const client = clientWith(labels('before', 'own-id'))
  const [problem, ...more] = await neighbourProblems({ client, settings })
  expect(more).toEqual([])
  expect(problem?.what).toMatch(/lap\/instance=before, and K8S_INSTANCE is lap/)
  expect(problem?.remedy).toContain('-l lap/installation=own-id,lap/instance=before')
})
