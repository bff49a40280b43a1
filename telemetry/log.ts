import { type DestinationStream, type Logger, pino } from 'pino'

export type { Logger }

/**
 * What is never written, wherever it stands in the fields of a line: at the top, or one or two objects down.
 * Names as they occur in our own objects, in rows and on the wire.
 */
const SECRET_FIELDS = [
  'authorization',
  'cookie',
  'set-cookie',
  'token',
  'ticket',
  'password',
  'secret',
  'api_key',
  'apiKey',
  'masterKey',
  'encryptionKey',
  'databaseUrl',
  'clientSecret',
  'webhookSecret',
  'env',
  'env_vars',
  'MASTER_KEY',
  'ENCRYPTION_KEY',
  'DATABASE_URL',
  'LITELLM_API_KEY',
]
const paths = SECRET_FIELDS.flatMap((field) => {
  const key = `["${field}"]`
  return [key, `*${key}`, `*.*${key}`]
})

/** Credentials in URLs, which drivers put into their messages and stacks. */
const withoutCredentials = (line: string): string => line.replace(/(\w:\/\/)[^\s/@"]+@/g, '$1[hidden]@')

/**
 * Root logger of a process: one JSON object a line, `time` in ISO 8601, `level` by name. Children carry ids: `log.child({ request_id })`.
 * @param options.name process name, for instance `api`
 * @param options.destination where to write; stdout if absent
 */
export const createLogger = (options: { level: string; name: string; destination?: DestinationStream }): Logger =>
  pino(
    {
      level: options.level,
      name: options.name,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths, censor: '[hidden]' },
      hooks: { streamWrite: withoutCredentials },
    },
    options.destination ?? pino.destination(1),
  )
