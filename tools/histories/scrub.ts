import { hostname } from 'node:os'

/** `pid@host`, by which a worker names itself, also in the names of its own task queues. */
const IDENTITY = /\d+@[\w.-]+/g

const cleanText = (text: string, dir: string): string =>
  text.replaceAll(dir, '/data').replaceAll(IDENTITY, 'worker').replaceAll(hostname(), 'host')

/** A payload: base64, mostly of JSON. What is no text has nothing to take out. */
const cleanPayload = (data: string, dir: string): string => {
  const text = Buffer.from(data, 'base64').toString('utf8')
  const clean = cleanText(text, dir)
  return clean === text ? data : Buffer.from(clean).toString('base64')
}

const isPayload = (value: Record<string, unknown>): value is { data: string } =>
  'metadata' in value && typeof value['data'] === 'string'

/** A history without what identifies the machine and what is large and of no use: paths, names of hosts, stacks. */
export const scrubbed = (value: unknown, dir: string): unknown => {
  if (typeof value === 'string') return cleanText(value, dir)
  if (Array.isArray(value)) return value.map((item) => scrubbed(item, dir))
  if (value === null || typeof value !== 'object') return value
  const record = value as Record<string, unknown>
  if (isPayload(record)) return { ...record, data: cleanPayload(record.data, dir) }
  return Object.fromEntries(
    Object.entries(record).flatMap(([key, item]) => (key === 'stackTrace' ? [] : [[key, scrubbed(item, dir)]])),
  )
}
