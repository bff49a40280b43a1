import { condition, sleep } from '@temporalio/workflow'
import { checkpointBackoffFirstMs, checkpointPatienceMs, restartCheckpointMs } from '../domain/limits.ts'
import { brief, storing } from './steps.ts'

/** Checkpoints of a session, one at a time, which no turn waits for for long. */
export const createCheckpoints = (sessionId: string, onDone: () => void) => {
  let running = false
  const start = (): void => {
    running = true
    void storing
      .storeCheckpoint(sessionId)
      // What it could not even write down, because no worker lived for long enough, is tried again a little later.
      .catch(() => sleep(checkpointBackoffFirstMs))
      .catch(() => {})
      .then(() => {
        running = false
        onDone()
      })
  }
  return {
    /** Begins one. What waits lets it go first for a little; then the two go on side by side. */
    async take(woken: () => boolean): Promise<void> {
      if (!running) start()
      await condition(() => woken() || !running, checkpointPatienceMs)
    },
    isRunning: () => running,
    done: () => condition(() => !running),
    /** A restart: a last checkpoint, then another sandbox. A store that hangs holds it up no longer than the limit: what is being stored is given up. */
    async leave(): Promise<void> {
      if (running) await condition(() => !running, restartCheckpointMs)
      await brief.leaveSandbox(sessionId)
    },
  }
}
