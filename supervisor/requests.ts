import { AppError, type ErrorDetail } from '../domain/errors.ts'
import { PERMISSION_DECISIONS, PERMISSION_KINDS } from '../domain/permission.ts'
import { checkpointMaxBytes } from '../domain/limits.ts'
import { CHECKPOINT_ID_HEADER } from '../domain/supervisor-protocol.ts'
import type {
  BindRequest,
  CheckpointRequest,
  Configuration,
  ModelRefusal,
  PermissionAnswer,
  TurnRequest,
} from '../domain/supervisor-protocol.ts'

/** What callers may send. Larger than what the platform's own API lets through, small enough that no caller can fill the sandbox' memory. */
const LIMITS = {
  nameChars: 500,
  secretChars: 8_192,
  urlChars: 8_192,
  commandChars: 100_000,
  promptChars: 1_000_000,
  envNames: 500,
  envValueChars: 131_072,
  files: 1_000,
  pathChars: 1_024,
  fileBase64Chars: 14 * 1024 * 1024,
  historyEntries: 10_000,
  historyTextChars: 1_000_000,
  parts: 200,
  mcpServers: 50,
  mcpArgs: 200,
  partTextChars: 16 * 1024 * 1024,
}

type Fields = Record<string, unknown>

/** Names every field that is wrong. */
const createChecks = () => {
  const problems: ErrorDetail[] = []
  const say = (path: string, message: string): void => void problems.push({ path, message })
  const text = (path: string, value: unknown, limits: { max: number; min?: number }): void => {
    if (typeof value !== 'string') return say(path, 'must be a string')
    if (value.length < (limits.min ?? 0)) say(path, 'must not be empty')
    if (value.length > limits.max) say(path, `must have at most ${limits.max} characters`)
  }
  const object = (path: string, value: unknown): Fields => {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Fields
    say(path, 'must be an object')
    return {}
  }
  const list = (path: string, value: unknown, max: number): unknown[] => {
    if (!Array.isArray(value)) say(path, 'must be a list')
    else if (value.length > max) say(path, `must have at most ${max} entries`)
    else return value
    return []
  }
  const done = (): void => {
    const [first] = problems
    if (first === undefined) return
    throw new AppError('invalid', `${first.path}: ${first.message}`, { details: problems.slice(0, 20) })
  }
  return { say, text, object, list, done }
}

type Checks = ReturnType<typeof createChecks>

const checkEnv = ({ say, text, object }: Checks, value: unknown): void => {
  const entries = Object.entries(object('env', value))
  if (entries.length > LIMITS.envNames) return say('env', `must have at most ${LIMITS.envNames} names`)
  for (const [name, content] of entries) {
    if (!/^[A-Za-z_][A-Za-z0-9_]{0,254}$/.test(name)) say(`env.${name.slice(0, 100)}`, 'is no name of a variable')
    text(`env.${name.slice(0, 100)}`, content, { max: LIMITS.envValueChars })
    if (typeof content === 'string' && content.includes('\0')) say(`env.${name}`, 'must not hold NUL')
  }
}

const checkFiles = ({ say, text, object, list }: Checks, value: unknown): void => {
  for (const [i, entry] of list('files', value, LIMITS.files).entries()) {
    const { path, content_base64 } = object(`files[${i}]`, entry)
    text(`files[${i}].path`, path, { min: 1, max: LIMITS.pathChars })
    text(`files[${i}].content_base64`, content_base64, { max: LIMITS.fileBase64Chars })
    if (typeof content_base64 === 'string' && !/^[A-Za-z0-9+/]*={0,2}$/.test(content_base64))
      say(`files[${i}].content_base64`, 'must be base64')
  }
}

const checkHistory = ({ say, text, object, list }: Checks, path: string, value: unknown): void => {
  for (const [i, entry] of list(path, value, LIMITS.historyEntries).entries()) {
    const told = object(`${path}[${i}]`, entry)
    if (told['role'] !== 'user' && told['role'] !== 'assistant') say(`${path}[${i}].role`, 'must be user or assistant')
    text(`${path}[${i}].text`, told['text'], { max: LIMITS.historyTextChars })
  }
}

const checkCheckpoint = (checks: Checks, value: unknown): void => {
  const { id, since } = checks.object('checkpoint', value)
  checks.text('checkpoint.id', id, { min: 1, max: LIMITS.nameChars })
  checkHistory(checks, 'checkpoint.since', since)
}

const checkGateway = ({ say, text, object }: Checks, value: unknown): void => {
  const { base_url, api_key } = object('gateway', value)
  text('gateway.base_url', base_url, { min: 1, max: LIMITS.nameChars })
  if (!/^https?:$/.test(URL.parse(String(base_url))?.protocol ?? '')) say('gateway.base_url', 'must be an http(s) URL')
  text('gateway.api_key', api_key, { min: 1, max: LIMITS.secretChars })
}

const checkTexts = ({ text, object }: Checks, path: string, value: unknown): void => {
  if (value === undefined) return
  for (const [name, content] of Object.entries(object(path, value)))
    text(`${path}.${name.slice(0, 100)}`, content, { max: LIMITS.envValueChars })
}

const checkMcp = (checks: Checks, value: unknown): void => {
  const { say, text, object, list } = checks
  const names = new Set<unknown>()
  for (const [i, entry] of list('mcp', value, LIMITS.mcpServers).entries()) {
    const at = `mcp[${i}]`
    const { name, transport, url, headers, command, args, env } = object(at, entry)
    if (typeof name !== 'string' || !/^[A-Za-z0-9_-]{1,64}$/.test(name))
      say(`${at}.name`, 'must be 1 to 64 letters, digits, _ or -')
    if (names.has(name)) say(`${at}.name`, 'must be the name of one server only')
    names.add(name)
    if (transport === 'http') {
      if (!/^https?:$/.test(URL.parse(String(url))?.protocol ?? '')) say(`${at}.url`, 'must be an http(s) URL')
      checkTexts(checks, `${at}.headers`, headers)
    } else if (transport === 'stdio') {
      text(`${at}.command`, command, { min: 1, max: LIMITS.pathChars })
      for (const [n, arg] of list(`${at}.args`, args ?? [], LIMITS.mcpArgs).entries())
        text(`${at}.args[${n}]`, arg, { max: LIMITS.envValueChars })
      checkTexts(checks, `${at}.env`, env)
    } else say(`${at}.transport`, 'must be http or stdio')
  }
}

const checkPermissions = ({ say, object }: Checks, value: unknown): void => {
  const rules = object('permissions', value)
  for (const [kind, rule] of Object.entries({ default: undefined, ...rules })) {
    const known = kind === 'default' || PERMISSION_KINDS.some((each) => each === kind)
    if (!known)
      say(`permissions.${kind.slice(0, 100)}`, `is not known; known are default, ${PERMISSION_KINDS.join(', ')}`)
    else if (rule !== 'allow' && rule !== 'ask' && rule !== 'deny')
      say(`permissions.${kind}`, 'must be allow, ask or deny')
  }
}

/** @throws AppError `invalid`, with the name of each field that is wrong */
export const asBindRequest = (body: unknown): BindRequest => {
  const checks = createChecks()
  const { say, text, object } = checks
  const fields = object('body', body)
  const { epoch, session, env, prompt, model, gateway, files, history } = fields
  if (!Number.isSafeInteger(epoch) || Number(epoch) < 0) say('epoch', 'must be a whole number')
  const { id, agent_id, title } = object('session', session)
  text('session.id', id, { min: 1, max: LIMITS.nameChars })
  text('session.agent_id', agent_id, { min: 1, max: LIMITS.nameChars })
  if (title !== null) text('session.title', title, { max: LIMITS.nameChars })
  checkEnv(checks, env)
  if (prompt !== null) text('prompt', prompt, { max: LIMITS.promptChars })
  text('model', model, { min: 1, max: LIMITS.nameChars })
  checkGateway(checks, gateway)
  checkFiles(checks, files)
  checkHistory(checks, 'history', history)
  if (fields['checkpoint'] !== undefined) checkCheckpoint(checks, fields['checkpoint'])
  if (fields['moved'] !== undefined && typeof fields['moved'] !== 'boolean') say('moved', 'must be true or false')
  if (fields['mcp'] !== undefined) checkMcp(checks, fields['mcp'])
  if (fields['permissions'] !== undefined) checkPermissions(checks, fields['permissions'])
  checks.done()
  return body as BindRequest
}

/** @returns the known fields of it @throws AppError `invalid`, with the name of each field that is wrong */
export const asConfiguration = (body: unknown): Configuration => {
  const checks = createChecks()
  const { say, text, object } = checks
  const fields = object('body', body)
  const { purpose, repo_url, branch, setup_command, env } = fields
  for (const name of ['sandbox_id', 'template_hash']) text(name, fields[name], { min: 1, max: LIMITS.nameChars })
  if (purpose !== 'pool' && purpose !== 'session') say('purpose', 'must be pool or session')
  const { id } = object('harness', fields['harness'])
  text('harness.id', id, { min: 1, max: LIMITS.nameChars })
  text('repo_url', repo_url, { max: LIMITS.urlChars })
  text('branch', branch, { max: LIMITS.nameChars })
  if (setup_command !== null) text('setup_command', setup_command, { max: LIMITS.commandChars })
  checkEnv(checks, env)
  checks.done()
  const { sandbox_id, template_hash } = body as Configuration
  return { sandbox_id, template_hash, purpose, harness: { id }, repo_url, branch, setup_command, env } as Configuration
}

/** @throws AppError `invalid`, with the name of each field that is wrong */
export const asTurnRequest = (body: unknown): TurnRequest => {
  const checks = createChecks()
  const { say, text, object, list } = checks
  const { turn_id, parts, model } = object('body', body)
  text('turn_id', turn_id, { min: 1, max: LIMITS.nameChars })
  if (model !== undefined) text('model', model, { min: 1, max: LIMITS.nameChars })
  const given = list('parts', parts, LIMITS.parts)
  if (Array.isArray(parts) && parts.length === 0) say('parts', 'must have at least one part')
  for (const [i, entry] of given.entries()) {
    const part = object(`parts[${i}]`, entry)
    text(`parts[${i}].type`, part['type'], { min: 1, max: LIMITS.nameChars })
    if (part['text'] !== undefined) text(`parts[${i}].text`, part['text'], { max: LIMITS.partTextChars })
  }
  checks.done()
  return body as TurnRequest
}

/** @throws AppError `invalid` */
export const asInterruptRequest = (body: unknown): { turn_id?: string } => {
  const checks = createChecks()
  const { turn_id } = checks.object('body', body)
  if (turn_id !== undefined) checks.text('turn_id', turn_id, { min: 1, max: LIMITS.nameChars })
  checks.done()
  return body as { turn_id?: string }
}

/** @throws AppError `invalid` */
export const asModelRefusal = (body: unknown): ModelRefusal => {
  const checks = createChecks()
  const { reason } = checks.object('body', body)
  if (reason !== null) checks.text('reason', reason, { min: 1, max: LIMITS.nameChars })
  checks.done()
  return body as ModelRefusal
}

/** @throws AppError `invalid` */
export const asCheckpointRequest = (body: unknown): CheckpointRequest => {
  const checks = createChecks()
  const { max_bytes } = checks.object('body', body)
  const isSize = Number.isSafeInteger(max_bytes) && Number(max_bytes) > 0 && Number(max_bytes) <= checkpointMaxBytes
  if (!isSize) checks.say('max_bytes', `must be a number of bytes, at most ${checkpointMaxBytes}`)
  checks.done()
  return body as CheckpointRequest
}

/** The id of a checkpoint, as a header. @throws AppError `invalid` */
export const asCheckpointId = (header: string | string[] | undefined): string => {
  const checks = createChecks()
  if (typeof header !== 'string' || !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(header))
    checks.say(CHECKPOINT_ID_HEADER, 'must be the id of the checkpoint, a UUID')
  checks.done()
  return header as string
}

/** @throws AppError `invalid` */
export const asPermissionAnswer = (body: unknown): PermissionAnswer => {
  const checks = createChecks()
  const { decision } = checks.object('body', body)
  if (!PERMISSION_DECISIONS.some((each) => each === decision))
    checks.say('decision', `must be one of ${PERMISSION_DECISIONS.join(', ')}`)
  checks.done()
  return body as PermissionAnswer
}
