import { TEST_MASTER_KEY } from './api.ts'

/** One frame as it came over the wire. */
export type WireFrame = { id: number | null; data: { type: string } & Record<string, unknown> }

export type OpenStream = {
  status: number
  headers: Headers
  /** Ends with the stream. */
  frames: AsyncGenerator<WireFrame, void, undefined>
  /** Frames until one that is wanted, that one included. Throws when the stream ends before, or after a minute. */
  until(wanted: (frame: WireFrame) => boolean): Promise<WireFrame[]>
  /** All that is left of a stream that ends by itself. */
  rest(): Promise<WireFrame[]>
  /** Lines that are no frames: comments, and what clients are told. */
  asides: string[]
  close(): void
}

const frameOf = (lines: string[]): WireFrame | null => {
  const valueOf = (name: string): string | undefined =>
    lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2)
  const data = valueOf('data')
  if (data === undefined) return null
  const id = valueOf('id')
  return { id: id === undefined ? null : Number(id), data: JSON.parse(data) as WireFrame['data'] }
}

async function* framesOf(response: Response, asides: string[]): AsyncGenerator<WireFrame, void, undefined> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const bytes of response.body ?? []) {
    rest += decoder.decode(bytes, { stream: true })
    const blocks = rest.split('\n\n')
    rest = blocks.pop() ?? ''
    for (const block of blocks) {
      const frame = frameOf(block.split('\n'))
      if (frame === null) asides.push(block)
      else yield frame
    }
  }
}

/** Opens a stream of server-sent events with the master key. */
export const openStream = async (
  url: string,
  options: { method?: string; body?: unknown; headers?: Record<string, string> } = {},
): Promise<OpenStream> => {
  const closing = new AbortController()
  const response = await fetch(url, {
    method: options.method ?? 'GET',
    headers: { authorization: `Bearer ${TEST_MASTER_KEY}`, ...options.headers },
    ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }),
    signal: closing.signal,
  })
  const asides: string[] = []
  const frames = framesOf(response, asides)
  const collect = async (wanted: ((frame: WireFrame) => boolean) | null): Promise<WireFrame[]> => {
    const timer = setTimeout(() => closing.abort(new Error('the stream had no such frame within a minute')), 60_000)
    const seen: WireFrame[] = []
    try {
      for (;;) {
        const { value, done } = await frames.next()
        if (done === true) {
          if (wanted === null) return seen
          throw new Error(`the stream ended without such a frame: ${JSON.stringify(seen)}`)
        }
        seen.push(value)
        if (wanted?.(value) === true) return seen
      }
    } finally {
      clearTimeout(timer)
    }
  }
  return {
    status: response.status,
    headers: response.headers,
    frames,
    until: (wanted) => collect(wanted),
    rest: () => collect(null),
    asides,
    close: () => closing.abort(),
  }
}
