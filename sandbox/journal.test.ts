import { expect, test } from '@jest/globals'
import { entriesOf } from './journal.ts'

async function* piecesOf(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

const read = async (text: string, size: number): Promise<unknown[]> => {
  const entries: unknown[] = []
  for await (const entry of entriesOf(piecesOf(Buffer.from(text), size))) entries.push(entry)
  return entries
}

test.each([1, 2, 3, 7, 1_000])('entries are whole wherever the stream is cut into pieces of %i bytes', async (size) => {
  const text =
    ': hello\n\nid: 1\ndata: {"text":"€1"}\n\nid: 2\ndata: {"text":"a\\n\\nb"}\n\n: beat\n\nid: 3\ndata: {"text":"cut off"}\n'
  expect(await read(text, size)).toEqual([{ text: '€1' }, { text: 'a\n\nb' }])
})

test('an entry of many megabytes is one entry', async () => {
  const entry = { text: 'x'.repeat(64 * 1_024 * 1_024) }
  const [found, ...more] = await read(`data: ${JSON.stringify(entry)}\n\n`, 64 * 1_024)
  expect(more).toEqual([])
  expect((found as typeof entry).text === entry.text).toBe(true)
})
