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
 * Gives each viewer the screen as it is and then what is written to it, nothing lost or doubled in between.
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

type State = { is: 'joining'; since: Buffer[] } | { is: 'live' } | { is: 'behind' }

export const createViewers = (screen: Screen): Viewers => {
  const states = new Map<Viewer, State>()

  const sendAll = (viewer: Viewer, bytes: Buffer): void => {
    for (let at = 0; at < bytes.length; at += frameBytesMax)
      viewer.send(bytes.subarray(at, at + frameBytesMax), () => caughtUp(viewer))
  }
  const caughtUp = (viewer: Viewer): void => {
    if (states.get(viewer)?.is === 'behind' && viewer.pendingBytes() <= caughtUpBytes) join(viewer)
  }
  const join = (viewer: Viewer): void => {
    const joining: State = { is: 'joining', since: [] }
    states.set(viewer, joining)
    screen.snapshot((text) => {
      if (states.get(viewer) !== joining) return
      states.set(viewer, { is: 'live' })
      viewer.resized(screen.size())
      for (const bytes of [Buffer.from(text), ...joining.since]) sendAll(viewer, bytes)
    })
  }
  return {
    add: join,
    remove: (viewer) => void states.delete(viewer),
    show(bytes) {
      for (const [viewer, state] of states) {
        if (state.is === 'joining') state.since.push(bytes)
        if (state.is !== 'live') continue
        if (viewer.pendingBytes() > behindBytes) states.set(viewer, { is: 'behind' })
        else sendAll(viewer, bytes)
      }
    },
    resized(size) {
      for (const [viewer, { is }] of states) if (is !== 'joining') viewer.resized(size)
    },
    leave(reason) {
      for (const viewer of states.keys()) viewer.leave(reason)
      states.clear()
    },
  }
}
