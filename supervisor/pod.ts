import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import path from 'node:path'
import { AppError } from '../domain/errors.ts'
import type { Failure } from './sandbox.ts'

/** What a pod may tell of its sandbox; the rest comes with `POST /configure`. */
export type PodSettings = {
  sandboxId: string
  tokenSha256: Buffer
  listen: { host: string; port: number }
  dir: string
  /** Folders with harness folders in them, beside the built-in one. */
  harnessPaths: string[]
}

type Environment = Record<string, string | undefined>

/** Kubernetes keeps no more of it, and what is cut off at its beginning is no JSON. */
const lastWordsMaxBytes = 4_096
const headChars = 200

const isPod = (env: Environment): boolean => env['LAP_TOKEN_SHA256'] !== undefined

const take = (env: Environment, name: string): string => {
  const value = env[name] ?? ''
  // Nothing of it is for those who come after.
  delete env[name]
  return value
}

const listenOf = (text: string): PodSettings['listen'] => {
  const [, ipv6, name, port = ''] = /^(?:\[(.+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? []
  const host = ipv6 ?? name
  if (host === undefined || Number(port) > 65_535)
    throw new AppError('invalid', `LAP_LISTEN: "${text}" is no host and port such as 0.0.0.0:4090`)
  return { host, port: Number(port) }
}

/**
 * Takes what is for the supervisor out of its environment.
 * @returns null when it is not started as in a pod: then its configuration comes on standard input
 * @throws AppError `invalid`, with the name of the variable
 */
export const takePodSettings = (env: Environment): PodSettings | null => {
  if (!isPod(env)) return null
  const hash = take(env, 'LAP_TOKEN_SHA256')
  const sandboxId = take(env, 'LAP_SANDBOX_ID')
  const listen = take(env, 'LAP_LISTEN')
  const dir = take(env, 'LAP_DIR')
  const harnesses = take(env, 'HARNESS_PATH')
  if (!/^[0-9a-f]{64}$/i.test(hash))
    throw new AppError('invalid', "LAP_TOKEN_SHA256: must be the SHA-256 of the sandbox' token, 64 hexadecimal digits")
  if (sandboxId === '') throw new AppError('invalid', 'LAP_SANDBOX_ID: must be the id of the sandbox')
  if (!path.isAbsolute(dir)) throw new AppError('invalid', `LAP_DIR: "${dir}" is no absolute path of a folder`)
  return {
    sandboxId,
    tokenSha256: Buffer.from(hash, 'hex'),
    listen: listenOf(listen),
    dir,
    harnessPaths: harnesses.split(':').filter((folder) => folder !== ''),
  }
}

/** @returns the file for the last words, or null when nobody looks for them */
export const takeTerminationLog = (env: Environment): string | null => {
  const file = take(env, 'LAP_TERMINATION_LOG')
  return isPod(env) ? file || '/dev/termination-log' : null
}

/** The beginning says what, the end why. */
const shortened = (text: string, maxChars: number): string =>
  text.length <= maxChars ? text : `${text.slice(0, headChars)} … ${text.slice(headChars - maxChars)}`

/** Leaves the reason where Kubernetes looks for it, if there is such a file: one line of JSON. */
export const leaveLastWords = (file: string, { code, message }: Failure): void => {
  let line = JSON.stringify({ code, message })
  for (let chars = 2 ** 12; Buffer.byteLength(line) > lastWordsMaxBytes; chars /= 2)
    line = JSON.stringify({ code, message: shortened(message, chars) })
  try {
    // Of what tools may have written there nothing stays.
    const fd = openSync(file, 'r+')
    try {
      ftruncateSync(fd)
      writeSync(fd, line)
    } finally {
      closeSync(fd)
    }
  } catch {
    // No pod, or none that keeps last words; the log has them as well.
  }
}
