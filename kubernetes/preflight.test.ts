import { expect, test } from '@jest/globals'
import { rightsFor } from './preflight.ts'

const verbsOn = (resource: string, ...of: Parameters<typeof rightsFor>): string[] =>
  rightsFor(...of)
    .filter((right) => right.resource === resource && right.subresource === undefined)
    .map(({ verb }) => verb)

test('pods are made only where they are the sandboxes, and Services only where they are the way in', () => {
  expect(verbsOn('pods', 'sandbox', 'pod-ip')).not.toContain('create')
  expect(verbsOn('pods', 'pod', 'pod-ip')).toContain('create')
  expect(verbsOn('sandboxes', 'pod', 'pod-ip')).toEqual([])
  expect(verbsOn('services', 'sandbox', 'pod-ip')).toEqual([])
  expect(verbsOn('services', 'sandbox', 'nodeport')).toContain('create')
})

test('no right reaches beyond the namespace but to read nodes, which may be missing', () => {
  const wide = rightsFor('sandbox', 'nodeport').filter(({ resource }) => resource === 'nodes')
  expect(wide.map(({ verb, optional }) => [verb, optional])).toEqual([
    ['get', true],
    ['list', true],
    ['watch', true],
  ])
})
