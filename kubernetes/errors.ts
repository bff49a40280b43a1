import { AppError, errorText, isAppError } from '../domain/errors.ts'
import type { FailureCode } from '../domain/session.ts'

/** What an API server says when it refuses: its `Status` object. */
type StatusBody = { message?: string; reason?: string; code?: number; details?: { retryAfterSeconds?: number } }

/** The API server answered, and not with what was asked. */
export class KubeError extends Error {
  override name = 'KubeError'
  /** HTTP status. */
  readonly status: number
  /** `AlreadyExists`, `Forbidden`, … */
  readonly reason: string
  readonly retryAfterMs: number | null
  constructor(what: { status: number; reason: string; message: string; retryAfterMs: number | null }) {
    super(what.message)
    this.status = what.status
    this.reason = what.reason
    this.retryAfterMs = what.retryAfterMs
  }
}

export const isKubeError = (error: unknown): error is KubeError => Error.isError(error) && error.name === 'KubeError'
export const hasStatus = (error: unknown, ...statuses: number[]): boolean =>
  isKubeError(error) && statuses.includes(error.status)

const seconds = (text: string | undefined): number | null => {
  if (text === undefined) return null
  if (/^\d{1,6}$/.test(text)) return Number(text) * 1_000
  const date = Date.parse(text)
  return Number.isNaN(date) ? null : Math.max(0, date - Date.now())
}

/** @param retryAfter the header: seconds or a date */
export const errorOf = (status: number, body: string, retryAfter?: string): KubeError => {
  let said: StatusBody
  try {
    said = JSON.parse(body) as StatusBody
  } catch {
    said = {}
  }
  const inBody = said.details?.retryAfterSeconds
  return new KubeError({
    status,
    reason: said.reason ?? '',
    message: said.message ?? (body.slice(0, 300) || `the API server answered ${status}`),
    retryAfterMs: seconds(retryAfter) ?? (inBody === undefined ? null : inBody * 1_000),
  })
}

/** A watch or a list whose version the API server no longer has: only a new list helps. */
export const isExpired = (error: unknown): boolean =>
  isKubeError(error) && (error.status === 410 || error.reason === 'Expired' || error.reason === 'Gone')

/** Quotas are said by the API server itself; what else has the word in its name or its text is somebody's own. */
const QUOTA_EXCEEDED = /is forbidden: exceeded quota: /
/** The ports of nodes, or the addresses of Services, of the whole cluster: said as an internal error. */
const RANGE_FULL = /failed to allocate a (nodePort|serviceIP): .*range is full/
const REFUSED = /is forbidden|denied the request|violates PodSecurity|is invalid/i
/** It is not asked for its opinion, and the API server does not do without. Said as an internal error. */
const WEBHOOK_DOWN = /failed calling webhook/

/** Why the API server, or a controller in its place, would not make an object. Null: it may, another time. */
export const refusalOf = (status: number, message: string): FailureCode | null => {
  if (QUOTA_EXCEEDED.test(message) || RANGE_FULL.test(message)) return 'quota_exceeded'
  if (REFUSED.test(message) || isWebhookDown(message)) return 'setup_failed'
  return status === 400 || status === 403 || status === 422 ? 'setup_failed' : null
}

/** An admission webhook may be away for a moment, as when its pod is replaced. */
export const webhookGraceMs = 3_000

export const isWebhookDown = (message: string): boolean => WEBHOOK_DOWN.test(message)

const RETRIED = new Set([429, 500, 502, 503, 504])
/** Somebody else wrote at the same time, to the object or to a quota that it counts for: the same request may succeed now. Also 409, as what is there already. */
const COLLIDED = /the object has been modified; please apply your changes to the latest version/

/** @returns for how many milliseconds after the first such answer the same request may be sent again */
export const patienceMs = ({ status, message }: KubeError): number => {
  const mayChange = RETRIED.has(status) || COLLIDED.test(message)
  if (!mayChange || RANGE_FULL.test(message)) return 0
  return isWebhookDown(message) ? webhookGraceMs : Number.POSITIVE_INFINITY
}

/** The API server did not answer, not in time, or only that it cannot now. */
export const unavailable = (message: string, cause?: unknown): AppError =>
  new AppError('unavailable', message, { cause })

/** The API server knows nobody of this name: nothing that was asked for has to do with it. */
export const LOGIN_REFUSED = {
  what: 'The Kubernetes API server does not accept the platform’s credentials.',
  remedy:
    'Log in anew, or give KUBECONFIG the path of a kubeconfig whose token or certificate is valid; a file that is renewed in its place is read again.',
}

/** @param error its answer, with 401 */
export const loginRefused = (error: unknown): AppError =>
  unavailable(`${LOGIN_REFUSED.what} ${LOGIN_REFUSED.remedy} It said: ${errorText(error)}`, error)

export const isLoginRefused = (error: unknown): error is AppError => isAppError(error) && hasStatus(error.cause, 401)
