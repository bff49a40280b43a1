import { readFileSync } from 'node:fs'
import path from 'node:path'
import { expect, test } from '@jest/globals'
import { Registry } from 'prom-client'
import { createCounters } from './counters.ts'
import { createGauges } from './metrics.ts'

const page = readFileSync(path.join(import.meta.dirname, '../docs/metrics.md'), 'utf8')

type Described = { name: string; type: string; labels: string[] }

const byName = (a: Described, b: Described): number => a.name.localeCompare(b.name)

const described = (): Described[] =>
  [...page.matchAll(/^\| `([a-z_]+)` \| (\w+) \| (.+?) \| .+ \|$/gm)].map(([, name = '', type = '', labels = '']) => ({
    name,
    type,
    labels: [...labels.matchAll(/`(\w+)`/g)].map(([, label = '']) => label),
  }))

const served = async (): Promise<Described[]> => {
  const registry = new Registry()
  const metrics = [...Object.values(createCounters([registry])), ...Object.values(createGauges([registry]))]
  // Labels of a metric without a value are in no scrape.
  const labelsOf = new Map(
    metrics.map((metric): [unknown, unknown] => [Reflect.get(metric, 'name'), Reflect.get(metric, 'labelNames')]),
  )
  const all = await registry.getMetricsAsJSON()
  return all.map(({ name, type }) => ({ name, type: String(type), labels: labelsOf.get(name) as string[] }))
}

test('docs/metrics.md has every metric that is served, with its type and labels, and no other', async () => {
  const expected = await served()
  expect(expected.length).toBeGreaterThan(40)
  expect(described().toSorted(byName)).toEqual(expected.toSorted(byName))
})

test('queries on the page ask for metrics that there are', () => {
  const names = described().map(({ name }) => name)
  const queries = [...page.matchAll(/```promql\n([^`]+)```/g)].map(([, query = '']) => query).join('\n')
  const asked = [...queries.matchAll(/\b([a-z]+(?:_[a-z]+)+)(?=[[{])/g)].map(([, name = '']) => name)
  expect(asked.length).toBeGreaterThan(10)
  for (const name of asked) expect(names).toContain(name.replace(/_(bucket|sum|count)$/, ''))
})
