import { randomBytes } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Readable } from 'node:stream'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { sha256 } from '../test/checkpoint-sandbox.ts'
import { holdArchive } from './archive.ts'

/** The temporary files of this test alone. */
const dir = mkdtempSync(path.join(tmpdir(), 'lap-archives-'))
const before = process.env['TMPDIR']
beforeAll(() => void (process.env['TMPDIR'] = dir))
afterAll(() => {
  if (before === undefined) delete process.env['TMPDIR']
  else process.env['TMPDIR'] = before
  rmSync(dir, { recursive: true })
})

async function* inPieces(bytes: Buffer): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 50_000) yield bytes.subarray(at, at + 50_000)
}

const readAll = async (source: AsyncIterable<Uint8Array>): Promise<Buffer> => {
  const pieces: Uint8Array[] = []
  for await (const piece of source) pieces.push(piece)
  return Buffer.concat(pieces)
}

test('an archive is read as often as one likes, and has no file that could be left', async () => {
  const bytes = randomBytes(200_001)
  await using archive = await holdArchive(inPieces(bytes), bytes.length)
  expect([archive.bytes, archive.sha256]).toEqual([bytes.length, sha256(bytes)])
  for (let i = 0; i < 2; i++) expect((await readAll(archive.read())).equals(bytes)).toBe(true)
  expect(readdirSync(dir)).toEqual([])
})

test('it can be closed whoever has begun to read it, or never did', async () => {
  const archive = await holdArchive(inPieces(randomBytes(200_000)), 200_000)
  Readable.from(archive.read())
  const begun = archive.read()[Symbol.asyncIterator]()
  await begun.next()
  await archive[Symbol.asyncDispose]()
})

test('one that is too large, or breaks off, is none', async () => {
  await expect(holdArchive(inPieces(randomBytes(1_001)), 1_000)).rejects.toMatchObject({ code: 'too_large' })
  const broken = async function* (): AsyncGenerator<Uint8Array> {
    yield randomBytes(10)
    throw new Error('broken off')
  }
  await expect(holdArchive(broken(), 1_000)).rejects.toThrow('broken off')
  expect(existsSync(dir) && readdirSync(dir)).toEqual([])
})
