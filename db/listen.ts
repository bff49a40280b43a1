import pg from 'pg'
import { EVENT_CHANNEL } from '../domain/names.ts'

/** News of sessions for the streams of this process: one connection that listens, however many streams there are. */
export type Listener = AsyncDisposable & {
  /** Calls back at each piece of news of the session, and once after a lost connection is back (news may have been missed). @returns how to stop */
  subscribe(sessionId: string, onNews: () => void): () => void
  readonly connected: boolean
}

const RETRY_FIRST_MS = 50
const RETRY_MAX_MS = 2_000

/** A path that silently drops packets would leave the connection deaf for hours: the server has this long to answer, each time. */
const PULSE_MS = 15_000

const createPulse = (client: pg.Client): (() => Promise<void>) => {
  let answered = true
  return async () => {
    if (!answered) throw new Error('The listening connection does not answer')
    answered = false
    await client.query('select 1')
    answered = true
  }
}

/** Connects in the background and again whenever the connection is lost. */
export const createListener = (url: string, onLost: (error: Error) => void = () => {}): Listener => {
  const subscribers = new Map<string, Set<() => void>>()
  let client: pg.Client | null = null
  let connecting: pg.Client | null = null
  let retryMs = RETRY_FIRST_MS
  let timer: NodeJS.Timeout | undefined
  let closed = false

  const wake = (sessionId: string): void =>
    Array.from(subscribers.get(sessionId) ?? []).forEach((callback) => callback())
  const wakeAll = (): void => [...subscribers.keys()].forEach(wake)

  const again = (error: Error): void => {
    client = null
    if (closed) return
    onLost(error)
    timer = setTimeout(connect, retryMs)
    retryMs = Math.min(retryMs * 2, RETRY_MAX_MS)
  }

  const connect = (): void => {
    const next = new pg.Client({
      connectionString: url,
      application_name: 'lap listen',
      keepAlive: true,
      connectionTimeoutMillis: 5_000,
    })
    connecting = next
    const beat = createPulse(next)
    let over = false
    const pulse = setInterval(() => void beat().catch(lost), PULSE_MS).unref()
    const lost = (error: Error): void => {
      if (over) return
      over = true
      clearInterval(pulse)
      next.end().catch(() => {})
      again(error)
    }
    next.on('error', lost)
    next.on('end', () => lost(new Error('The listening connection ended')))
    next.on('notification', ({ payload }) => wake(payload ?? ''))
    next
      .connect()
      .then(() => next.query(`listen ${EVENT_CHANNEL}`))
      .then(() => {
        client = next
        retryMs = RETRY_FIRST_MS
        wakeAll()
      })
      .catch(lost)
  }
  connect()

  return {
    get connected() {
      return client !== null
    },
    subscribe(sessionId, onNews) {
      const callbacks = subscribers.get(sessionId) ?? new Set()
      subscribers.set(sessionId, callbacks.add(onNews))
      return () => {
        callbacks.delete(onNews)
        if (callbacks.size === 0 && subscribers.get(sessionId) === callbacks) subscribers.delete(sessionId)
      }
    },
    async [Symbol.asyncDispose]() {
      closed = true
      clearTimeout(timer)
      await (client ?? connecting)?.end().catch(() => {})
    },
  }
}
