import type { TtySize } from '../../domain/tty.ts'
import type { Screen } from './screen.ts'

/** Somebody who looks at a screen. */
export type Viewer = {
  /** @param onSent when the bytes have left this process */
  send(bytes: Buffer, onSent: () => void): void
  /** Bytes that have not left this process. */
  pendingBytes(): number
  resized(size: TtySize): void
  /** The terminal is going away. */
  leave(reason: string): void
}

/**
 * Gives each viewer the screen as it is and then what is written to it and which size it gets, in order, nothing lost or doubled in between.
 *
 *   joining ──the screen is drawn up to here──► live ──too far behind──► behind
 *      ▲                                                                   │ it has taken what was on its way
 *      └───────────────────────────────────────────────────────────────────┘
 *
 * A viewer who is too slow skips: it gets the screen anew instead of what it has missed. Nobody else waits for it, and the program does not.
 */
export type Viewers = {
  add(viewer: Viewer): void
  remove(viewer: Viewer): void
  show(bytes: Buffer): void
  resized(size: TtySize): void
  leave(reason: string): void
}

/** More than a screen with all of its scrollback; what a fast connection has on its way is much less. */
const behindBytes = 2 * 1024 * 1024
const caughtUpBytes = 64 * 1024
/** Frames that a slow connection can be told apart from a dead one by. */
const frameBytesMax = 64 * 1024

/** What happens to a screen: something is written, or its size changes. */
type News = Buffer | TtySize
type State = { is: 'joining'; since: News[] } | { is: 'live' } | { is: 'behind' }

export const createViewers = (screen: Screen): Viewers => {
  const states = new Map<Viewer, State>()

  const sendAll = (viewer: Viewer, bytes: Buffer): void => {
    for (let at = 0; at < bytes.length; at += frameBytesMax)
      viewer.send(bytes.subarray(at, at + frameBytesMax), () => caughtUp(viewer))
  }
  const caughtUp = (viewer: Viewer): void => {
    if (states.get(viewer)?.is === 'behind' && viewer.pendingBytes() <= caughtUpBytes) join(viewer)
  }
  const tell = (viewer: Viewer, news: News): void =>
    Buffer.isBuffer(news) ? sendAll(viewer, news) : viewer.resized(news)
  const tellAll = (news: News): void => {
    for (const [viewer, state] of states) {
      if (state.is === 'joining') state.since.push(news)
      if (state.is !== 'live') continue
      if (viewer.pendingBytes() > behindBytes) states.set(viewer, { is: 'behind' })
      else tell(viewer, news)
    }
  }
  const join = (viewer: Viewer): void => {
    const joining: State = { is: 'joining', since: [] }
    states.set(viewer, joining)
    screen.snapshot((text, size) => {
      if (states.get(viewer) !== joining) return
      states.set(viewer, { is: 'live' })
      for (const news of [size, Buffer.from(text), ...joining.since]) tell(viewer, news)
    })
  }
  return {
    add: join,
    remove: (viewer) => void states.delete(viewer),
    show: tellAll,
    resized: tellAll,
    leave(reason) {
      for (const viewer of states.keys()) viewer.leave(reason)
      states.clear()
    },
  }
}
