import { EventSource } from 'eventsource'
import { type ClientView, createClientState } from '../stream-state.ts'
import { MASTER_KEY } from './stack.ts'

type Frame = { type: string; seq?: number }

/** A client of a session's events that shows what they say. */
export type Reader = {
  /** Numbers of the entries that came, in their order. */
  heard: number[]
  /** Types of the frames that are no entries. */
  control: string[]
  /** What it shows. @throws Error when an entry was missing, or came twice */
  view(): ClientView
  close(): void
}

/** Reads with the npm client, which connects again by itself, three seconds later, and sends the last id that it saw. */
export const read = (url: string): Reader => {
  const state = createClientState(new URL(url).searchParams.has('snapshot') ? 'snapshot' : 'log')
  let confused: unknown
  const source = new EventSource(url, {
    fetch: (input, init) =>
      fetch(input, { ...init, headers: { ...init.headers, authorization: `Bearer ${MASTER_KEY}` } }),
  })
  const reader: Reader = {
    heard: [],
    control: [],
    view: () => {
      if (confused !== undefined) throw confused
      return state.view()
    },
    close: () => source.close(),
  }
  source.addEventListener('message', (message) => {
    const data: Frame = JSON.parse(String(message.data))
    if (data.seq === undefined) reader.control.push(data.type)
    else reader.heard.push(data.seq)
    try {
      state.apply({ id: data.seq ?? null, data })
    } catch (error) {
      confused ??= error
    }
  })
  return reader
}
