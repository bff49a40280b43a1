import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../../domain/errors.ts'
import { checkpointCaptureTimeoutMs, checkpointTurnWaitMs } from '../../domain/limits.ts'
import { refused } from '../refused.ts'
import type { Harness } from '../harness.ts'
import type { Captured } from './capture.ts'

/** The checkpoints of a bound session. One is made at a time, and turns go before. */
export type Captures = {
  /** @param signal nobody waits for it any more @throws AppError `conflict` */
  capture(maxBytes: number, signal: AbortSignal): Promise<Captured & { discard(): Promise<void> }>
  /** Starts a turn, after the checkpoint that is being made; one that takes too long is given up. */
  before(start: () => void): Promise<void>
}

export type CapturesDeps = {
  /** Where they are made. */
  dir: string
  workspace: string
  env: Record<string, string>
  harnessId: string
  harness: Pick<Harness, 'save'>
  /** Commit of the clone; null without a repository. */
  base: () => string | null
  /** @throws AppError `conflict` before bind */
  session: () => { conversation: string; runningTurn: string | null }
}

type Running = { done: Promise<unknown>; giveUp: () => void; isGivenUp: boolean }

const turnRunning = (): AppError => refused('turn_running', 'a turn is running: a checkpoint is made between two turns')

type Wanted = { maxBytes: number; signal: AbortSignal }

/** @param between the conversation; throws while a turn runs */
const make = async (deps: CapturesDeps, between: () => string, { maxBytes, signal }: Wanted) => {
  // Loaded where it is used: not every sandbox lives to have one.
  const { capture } = await import('./capture.ts')
  await mkdir(deps.dir, { recursive: true })
  const folder = await mkdtemp(path.join(deps.dir, 'capture-'))
  const discard = (): Promise<void> => rm(folder, { recursive: true, force: true })
  try {
    const { workspace, env, harness, harnessId } = deps
    const conversation = between()
    const save = (to: string): Promise<void> => harness.save(conversation, to)
    const own = {
      workspace,
      env,
      harness: harnessId,
      conversation,
      save,
      folder,
      maxBytes,
      signal,
      base: deps.base(),
    }
    return { ...(await capture(own)), discard }
  } catch (error) {
    await discard()
    throw error
  }
}

export const createCaptures = (deps: CapturesDeps): Captures => {
  let running: Running | null = null
  let last: Promise<unknown> = Promise.resolve()
  let turnsWaiting = 0

  const between = (): string => {
    const { conversation, runningTurn } = deps.session()
    if (runningTurn !== null || turnsWaiting > 0) throw turnRunning()
    return conversation
  }

  const one = async (maxBytes: number, signal: AbortSignal) => {
    const end = new AbortController()
    const late = AbortSignal.timeout(checkpointCaptureTimeoutMs)
    const made = make(deps, between, { maxBytes, signal: AbortSignal.any([end.signal, late, signal]) })
    const own: Running = { done: made.catch(() => undefined), giveUp: () => end.abort(), isGivenUp: false }
    running = own
    try {
      return await made
    } catch (error) {
      if (own.isGivenUp) throw turnRunning()
      if (late.aborted) throw new AppError('unavailable', `no checkpoint within ${checkpointCaptureTimeoutMs} ms`)
      throw error
    } finally {
      running = null
    }
  }

  return {
    async capture(maxBytes, signal) {
      between()
      const mine = last.then(() => one(maxBytes, signal))
      last = mine.catch(() => undefined)
      return mine
    },
    async before(start) {
      turnsWaiting += 1
      try {
        const own = running
        if (own !== null) {
          const isLate = await Promise.race([own.done.then(() => false), sleep(checkpointTurnWaitMs, true)])
          if (isLate) {
            own.isGivenUp = true
            own.giveUp()
          }
        }
        start()
      } finally {
        turnsWaiting -= 1
      }
    },
  }
}
