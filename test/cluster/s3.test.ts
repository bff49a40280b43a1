import { randomBytes, randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import type { Archive } from '../../domain/checkpoint.ts'
import { createS3Checkpoints } from '../../s3/checkpoints.ts'
import type { S3Checkpoints, S3Settings } from '../../s3/checkpoints.ts'
import { sha256 } from '../checkpoint-sandbox.ts'
import { startS3Server } from './s3-server.ts'
import type { S3Server } from './s3-server.ts'

let server: S3Server
const opened: S3Checkpoints[] = []

beforeAll(async () => {
  server = await startS3Server()
}, 600_000)
afterAll(async () => {
  for (const store of opened) store.close()
  await server?.[Symbol.asyncDispose]()
})

const open = (over: Partial<S3Settings> = {}): S3Checkpoints => {
  const store = createS3Checkpoints({ ...server.settings, ...over })
  opened.push(store)
  return store
}

const archiveOf = (bytes: Buffer, hash = sha256(bytes)): Archive => ({
  bytes: bytes.length,
  sha256: hash,
  async *read() {
    for (let at = 0; at < bytes.length; at += 60_000) yield bytes.subarray(at, at + 60_000)
  },
})

const signal = () => AbortSignal.timeout(30_000)

const readAll = async (store: S3Checkpoints, id: string): Promise<Buffer> => {
  const pieces: Uint8Array[] = []
  for await (const piece of store.get(id, signal())) pieces.push(piece)
  return Buffer.concat(pieces)
}

describe('archives in a bucket', () => {
  test('come back as they went, also when they are put twice', async () => {
    const [store, id, bytes] = [open(), randomUUID(), randomBytes(10 * 2 ** 20 + 7)]
    for (let i = 0; i < 2; i++) await store.put(id, archiveOf(bytes), signal())
    expect((await readAll(store, id)).equals(bytes)).toBe(true)
    expect((await store.list('')).filter((one) => one.id === id)).toMatchObject([{ id, bytes: bytes.length }])
    await store.remove(id)
    await store.remove(id)
    expect((await store.list('')).filter((one) => one.id === id)).toEqual([])
    await expect(readAll(store, id)).rejects.toMatchObject({ code: 'not_found' })
  })

  test('are refused by the store when they are not what was signed', async () => {
    const [store, id] = [open(), randomUUID()]
    const bytes = randomBytes(100_000)
    await expect(store.put(id, archiveOf(bytes, sha256(Buffer.from('other'))), signal())).rejects.toThrow()
    expect(await store.list(id)).toEqual([])
  })

  test('are refused while the store is away, and taken when it is back', async () => {
    const [store, id, bytes] = [open(), randomUUID(), randomBytes(100_000)]
    await store.put(id, archiveOf(bytes), signal())
    await server.stop()
    await expect(store.put(id, archiveOf(bytes), signal())).rejects.toThrow()
    await expect(readAll(store, id)).rejects.toThrow()
    await server.start()
    await store.put(id, archiveOf(bytes), signal())
    expect((await readAll(store, id)).equals(bytes)).toBe(true)
  })

  test('are listed by the beginning of their ids, and only those of the prefix', async () => {
    const [store, other] = [open(), open({ prefix: 'others/deep' })]
    const ids = ['aaaa', 'bbbb'].map((start) => `${start}${randomUUID().slice(4)}`)
    for (const id of ids) await store.put(id, archiveOf(Buffer.from('x')), signal())
    await other.put(ids[0]!, archiveOf(Buffer.from('yy')), signal())
    expect((await store.list('a')).map(({ id }) => id)).toEqual([ids[0]])
    expect((await other.list('')).map(({ id, bytes }) => [id, bytes])).toEqual([[ids[0], 2]])
  })
})

describe('what is wrong with a bucket is said at the start, with the remedy', () => {
  test('nothing', async () => expect(await open().problem()).toBe(null))

  test.each<[string, () => Partial<S3Settings>, RegExp, string]>([
    ['it does not exist', () => ({ bucket: 'another-bucket' }), /does not exist/, 'CHECKPOINT_S3_BUCKET'],
    [
      'the secret is wrong',
      () => ({ credentials: { ...server.settings.credentials, secretAccessKey: 'a-wrong-5ecret' } }),
      /may not be used/,
      'CHECKPOINT_S3_ACCESS_KEY_ID',
    ],
    ['nothing listens there', () => ({ endpoint: 'http://127.0.0.1:9' }), /does not answer/, 'CHECKPOINT_S3_ENDPOINT'],
  ])('%s', async (_, over, what, setting) => {
    const problem = await open(over()).problem()
    expect(problem?.what).toMatch(what)
    expect(problem?.remedy).toContain(setting)
    const text = JSON.stringify(problem)
    for (const secret of ['a-wrong-5ecret', ...Object.values(server.settings.credentials)])
      expect(text).not.toContain(secret)
  })
})
