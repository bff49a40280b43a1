import { spawn } from 'node:child_process'
import { mkdir, open, readFile, rename, stat } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { RunningPart } from './keeper.ts'
import { endProcess, type ProcessRecord, recordOf } from './process.ts'

/** A log larger than this is set aside at the next start; one older log is kept. */
const LOG_MAX_BYTES = 20 * 1024 * 1024
const READY_POLL_MS = 50

export type Service = {
  /** Entry point, absolute. */
  file: string
  env: Record<string, string>
  logFile: string
  /** Whether it serves by now. */
  isReady: () => Promise<boolean>
  readyTimeoutMs: number
  /** What SIGTERM may take before it is ended. */
  stopTimeoutMs: number
  /** Told as soon as the process exists. */
  onSpawn?: (record: ProcessRecord) => void
  /** Ends the wait for its readiness, and the process. */
  signal?: AbortSignal
}

/** Whether a URL answers with 2xx, within two seconds. */
export const answers = async (url: string): Promise<boolean> => {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(2_000) })
    await response.arrayBuffer()
    return response.ok
  } catch {
    return false
  }
}

const openLog = async (file: string): Promise<Awaited<ReturnType<typeof open>>> => {
  await mkdir(path.dirname(file), { recursive: true })
  const size = await stat(file).then(
    (found) => found.size,
    () => 0,
  )
  if (size > LOG_MAX_BYTES) await rename(file, `${file}.1`)
  return open(file, 'a')
}

/** What a log says since a position, at most its last lines. */
const newLines = async (file: string, from: number): Promise<string> => {
  const text = await readFile(file).catch(() => Buffer.alloc(0))
  return text.subarray(from).toString().trimEnd().split('\n').slice(-15).join('\n')
}

/**
 * Starts an entry point of `bin/` as a process of its own, in a group of its own: Ctrl-C in the terminal reaches `npm start` only, which ends the
 * parts in order. Its output goes to the log file, so that it does not depend on this process.
 * @throws Error with the last lines of its log when it ends or does not become ready
 */
export const startService = async (service: Service): Promise<RunningPart> => {
  const name = path.basename(service.file)
  const log = await openLog(service.logFile)
  const from = (await log.stat()).size
  const child = spawn(process.execPath, [service.file], {
    env: service.env,
    stdio: ['ignore', log.fd, log.fd],
    detached: true,
  })
  let isOver = false
  const exited = new Promise<void>((resolve, reject) => {
    child.once('exit', () => {
      isOver = true
      resolve()
    })
    child.once('error', reject)
  })
  const pid = child.pid ?? -1
  const record = recordOf(pid) ?? { pid, started: 'ended' }
  service.onSpawn?.(record)
  await Promise.race([new Promise((resolve) => child.once('spawn', resolve)), exited])
  await log.close()
  const deadline = Date.now() + service.readyTimeoutMs
  while (!(await service.isReady())) {
    if (isOver) throw new Error(`${name} ended at once:\n${await newLines(service.logFile, from)}`)
    if (service.signal?.aborted) {
      await endProcess(record, 'SIGTERM', service.stopTimeoutMs)
      service.signal.throwIfAborted()
    }
    if (Date.now() > deadline) {
      await endProcess(record, 'SIGTERM', service.stopTimeoutMs)
      throw new Error(
        `${name} did not become ready in ${service.readyTimeoutMs / 1_000} s:\n${await newLines(service.logFile, from)}`,
      )
    }
    await sleep(READY_POLL_MS)
  }
  const stop = async (): Promise<void> => {
    await endProcess(record, 'SIGTERM', service.stopTimeoutMs)
    await exited
  }
  return { record, exited, stop }
}

/** Runs an entry point to its end; its output goes to the log file. @throws Error with the last lines when it fails */
export const runToEnd = async (service: Pick<Service, 'file' | 'env' | 'logFile'>): Promise<void> => {
  const log = await openLog(service.logFile)
  const from = (await log.stat()).size
  const child = spawn(process.execPath, [service.file], {
    env: service.env,
    stdio: ['ignore', log.fd, log.fd],
    detached: true,
  })
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('exit', resolve)
    child.once('error', reject)
  })
  await log.close()
  if (code !== 0)
    throw new Error(`${path.basename(service.file)} ended with ${code}:\n${await newLines(service.logFile, from)}`)
}
