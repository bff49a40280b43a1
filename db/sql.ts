import type { Pool, PoolClient, QueryConfig } from 'pg'
import { AppError, errorText, isAppError } from '../domain/errors.ts'

/** SQL by hand over the pool that MikroORM owns. Placeholders are `$1`, …; `timestamptz` comes back as Date, `jsonb` parsed. */
export type Sql = {
  query<T>(text: string, params?: unknown[]): Promise<T[]>
  /** First row, or null. */
  one<T>(text: string, params?: unknown[]): Promise<T | null>
  /** One transaction; nested, it joins the outer one. Rolled back when the work throws. */
  tx<T>(work: (sql: Sql) => Promise<T>): Promise<T>
}

/** Where a page of a list ends, the newest first: the next one begins after it. */
export type PageCursor = { createdAt: Date; id: string }

const CONNECTION_CODES = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'ENOENT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'EHOSTDOWN',
  'ENETUNREACH',
  'ENETDOWN',
  '57P01',
  '57P02',
  '57P03',
  '53300',
])
const CONNECTION_TEXT =
  /Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error|not queryable|server closed the connection|Query read timeout/i

const codeOf = (error: unknown): string => (error as { code?: string } | null)?.code ?? ''

/** Whether Postgres could not be reached, or went away while it was asked. `08P01`, a breach of the protocol, is a mistake of ours. */
export const isConnectionError = (error: unknown): boolean =>
  CONNECTION_CODES.has(codeOf(error)) ||
  (codeOf(error).startsWith('08') && codeOf(error) !== '08P01') ||
  CONNECTION_TEXT.test(errorText(error))

/** Name of the violated constraint, or null when the error is of another kind. */
export const violatedConstraint = (error: unknown): string | null =>
  codeOf(error) === '23505' ? ((error as { constraint?: string }).constraint ?? '') : null

/** A migration changed a table under a statement that this connection had planned. */
const isStalePlan = (error: unknown): boolean => codeOf(error) === '0A000' && /cached plan/.test(errorText(error))

/** Deadlock, lock timeout, statement timeout: nothing is wrong with the statement, and a repetition helps. */
const BUSY_CODES = new Set(['40P01', '55P03', '57014'])

const translate = (error: unknown): unknown => {
  const again = { cause: error, retryAfterSeconds: 1 }
  if (isConnectionError(error)) return new AppError('unavailable', 'The database cannot be reached', again)
  if (BUSY_CODES.has(codeOf(error)) || isStalePlan(error))
    return new AppError('unavailable', 'The database is busy; try again', again)
  return error
}

const rethrow = (error: unknown): never => {
  throw translate(error)
}

/** Arrays and objects are parameters of `jsonb` columns; `pg` would write an array as a Postgres array. */
const toParam = (value: unknown): unknown => {
  if (typeof value === 'string') return storableText(value)
  if (
    value === null ||
    typeof value !== 'object' ||
    value instanceof Date ||
    Buffer.isBuffer(value) ||
    value instanceof PgArray
  )
    return value instanceof PgArray ? value.items.map(toParam) : (value ?? null)
  return jsonText(value)
}

/** Text columns have no U+0000 either. */
const storableText = (text: string): string => (text.includes('\0') ? text.replaceAll('\0', '\ufffd') : text)

/**
 * JSON that `jsonb` takes: it has neither U+0000 nor half a surrogate pair, both of which tool output may hold; the replacement character
 * stands for them. `JSON.stringify` writes exactly these (and control characters) as `\u` escapes.
 */
const jsonText = (value: unknown): string => {
  const text = JSON.stringify(value)
  return text.includes('\\u')
    ? text.replaceAll(/(?<!\\)((?:\\\\)*)\\u(?:0000|d[89a-f][0-9a-f]{2})/g, '$1\\ufffd')
    : text
}

class PgArray {
  readonly items: unknown[]
  constructor(items: unknown[]) {
    this.items = items
  }
}

/** A parameter of an array type (`any($1)`, `unnest($1::text[])`) of texts, numbers or dates, as opposed to a `jsonb` one. */
export const pgArray = (items: unknown[]): PgArray => new PgArray(items)
/** `jsonb` text for elements of `unnest($1::text[])`. */
export const jsonItem = (value: unknown): string => jsonText(value)

/** Statements get a name, so that each connection plans them once. Those put together from parts are many: past a bound they stay without. */
const names = new Map<string, string>()
const NAMES_MAX = 500
let named = 0
const configOf = (text: string, params: unknown[]): QueryConfig => {
  const values = params.map(toParam)
  let name = names.get(text)
  if (name === undefined && names.size >= NAMES_MAX) return { text, values }
  if (name === undefined) names.set(text, (name = `lap${named++}`))
  return { name, text, values }
}

const over = (
  run: (config: QueryConfig) => Promise<{ rows: unknown[] }>,
  tx: Sql['tx'],
  inTransaction = false,
): Sql => {
  const query = async <T>(text: string, params: unknown[] = []): Promise<T[]> => {
    const config = configOf(text, params)
    try {
      return (await run(config)).rows as T[]
    } catch (error) {
      if (!isStalePlan(error)) throw translate(error)
      // Under a new name it is planned anew: at once, or by the next transaction.
      if (names.get(text) === config.name) names.delete(text)
      if (inTransaction) throw translate(error)
      return (await run(configOf(text, params)).catch(rethrow)).rows as T[]
    }
  }
  return {
    query,
    one: async <T>(text: string, params: unknown[] = []) => (await query<T>(text, params))[0] ?? null,
    tx,
  }
}

/** Whether the connection itself is of no use any more. */
const isLost = (error: unknown): boolean => isConnectionError(isAppError(error) ? error.cause : error)

/**
 * A server whose machine went away does not say so: without this, a statement would wait for minutes until the system gives the connection up. Longer
 * than the server's own limit for a statement, which says more.
 */
const ANSWER_TIMEOUT_MS = 35_000

type Bounded = QueryConfig & { query_timeout: number }

export const createSql = (getPool: () => Promise<Pool>, answerTimeoutMs = ANSWER_TIMEOUT_MS): Sql => {
  const bounded = (config: QueryConfig): Bounded => ({ ...config, query_timeout: answerTimeoutMs })
  const onClient = (client: PoolClient): Sql => {
    const sql: Sql = over(
      (config) => client.query(bounded(config)),
      (work) => work(sql),
      true,
    )
    return sql
  }
  const tx: Sql['tx'] = async (work) => {
    const client = await getPool()
      .then((pool) => pool.connect())
      .catch(rethrow)
    const say = (text: string): Promise<unknown> => client.query(bounded({ text })).catch(rethrow)
    let broken = false
    try {
      await say('begin')
      const result = await work(onClient(client))
      await say('commit')
      return result
    } catch (error) {
      broken = isLost(error)
      if (!broken)
        await say('rollback').catch(() => {
          broken = true
        })
      throw error
    } finally {
      client.release(broken)
    }
  }
  return over(async (config) => (await getPool()).query(bounded(config)), tx)
}
