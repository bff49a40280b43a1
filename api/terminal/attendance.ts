import type { WebSocket } from 'ws'
import { getSession, typedIn } from '../../db/sessions.ts'
import type { SessionRow } from '../../db/entities/session.ts'
import { errorText } from '../../domain/errors.ts'
import { streamRereadMs, terminalCloseMs, typingNotedEveryMs } from '../../domain/limits.ts'
import { isEnded } from '../../domain/session.ts'
import { TTY_CLOSE, isTyping } from '../../domain/tty.ts'
import { terminalOpened } from '../../telemetry/events/http.ts'
import type { ApiDeps } from '../deps.ts'
import type { Admitted } from './admission.ts'
import { type Ends, bridge } from './bridge.ts'

type Farewell = { code: number; reason: string }

const ENDING: Farewell = { code: TTY_CLOSE.again, reason: 'this process is ending: open it again' }
const GONE: Farewell = { code: TTY_CLOSE.again, reason: 'the sandbox has gone: open it again' }

const farewellOf = (session: SessionRow | null, sandboxId: string): Farewell | null => {
  if (session === null || isEnded(session.status))
    return { code: TTY_CLOSE.ended, reason: session?.end_reason ?? 'deleted' }
  return session.sandbox_id === sandboxId ? null : GONE
}

/** Notes that somebody types, so that the session does not end of idleness: often enough for that, and no more. */
const createTyping = (deps: ApiDeps, { id, idle_timeout_ms }: SessionRow): ((bytes: Buffer) => void) => {
  const everyMs = Math.min(typingNotedEveryMs, idle_timeout_ms / 4)
  let notedAt = -Infinity
  return (bytes) => {
    const now = performance.now()
    if (now - notedAt < everyMs || !isTyping(bytes)) return
    notedAt = now
    typedIn(deps.sql, id).catch((error: unknown) => {
      notedAt = -Infinity
      deps.log.warn({ session_id: id, reason: errorText(error) }, 'typing was not noted')
    })
  }
}

/** Says farewell when the session has ended or left the sandbox. @returns ends that */
const watchSession = (deps: ApiDeps, { session, sandbox }: Admitted, leave: (farewell: Farewell) => void) => {
  const look = async (): Promise<Farewell | null> => farewellOf(await getSession(deps.sql, session.id), sandbox.id)
  const check = (): void => {
    // Without the database nobody knows; the next news or the next look tells.
    look().then(
      (farewell) => farewell !== null && leave(farewell),
      () => undefined,
    )
  }
  const unsubscribe = deps.listener.subscribe(session.id, check)
  const timer = setInterval(check, streamRereadMs)
  check()
  return {
    look,
    stop(): void {
      unsubscribe()
      clearInterval(timer)
    },
  }
}

const closeSoon = (client: WebSocket, { code, reason }: Farewell): void => {
  client.close(code, reason)
  // A client that is not read is not heard saying goodbye either.
  client.resume()
  const late = setTimeout(() => client.terminate(), terminalCloseMs)
  client.once('close', () => clearTimeout(late))
}

/** From the upgrade to the end of a terminal. Resolves when the client's connection is closed. */
export const attend = (deps: ApiDeps, admitted: Admitted, ends: Ends): Promise<void> => {
  const { client, sandbox } = ends
  const closed = terminalOpened(deps, { session_id: admitted.session.id, sandbox_id: admitted.sandbox.id })
  let left = false
  const leave = (farewell: Farewell): void => {
    if (left) return
    left = true
    closeSoon(client, farewell)
  }
  const watch = watchSession(deps, admitted, leave)
  const onDrain = (): void => leave(ENDING)
  deps.drain.addEventListener('abort', onDrain, { once: true })
  if (deps.drain.aborted) onDrain()
  // A session that ends takes its sandbox with it, and says more.
  sandbox.once(
    'close',
    () =>
      void watch.look().then(
        (farewell) => leave(farewell ?? GONE),
        () => leave(GONE),
      ),
  )
  bridge(ends, createTyping(deps, admitted.session))
  return new Promise((resolve) => {
    client.once('close', (code) => {
      left = true
      deps.drain.removeEventListener('abort', onDrain)
      watch.stop()
      closed(code)
      resolve()
    })
  })
}
