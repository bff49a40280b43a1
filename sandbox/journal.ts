import type { JournalEntry } from '../domain/supervisor-protocol.ts'

/** Looks at each byte once, however long a line is: the reply of a long turn is one line of many pieces. */
async function* linesOf(body: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let begun: string[] = []
  for await (const bytes of body) {
    const [first = '', ...more] = decoder.decode(bytes, { stream: true }).split('\n')
    begun.push(first)
    for (const next of more) {
      yield begun.join('')
      begun = [next]
    }
  }
}

const DATA = 'data: '

/** Entries of a journal stream. A frame that is cut off at the end is not delivered. */
export async function* entriesOf(body: AsyncIterable<Uint8Array>): AsyncGenerator<JournalEntry> {
  let data: string | null = null
  for await (const line of linesOf(body)) {
    if (line.startsWith(DATA)) data = line.slice(DATA.length)
    if (line !== '' || data === null) continue
    yield JSON.parse(data) as JournalEntry
    data = null
  }
}
