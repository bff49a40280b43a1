import { createHmac, randomBytes } from 'node:crypto'

const PREFIX = 'whsec_'
const SECRET_BYTES = 32

/** A new secret, in the form that receivers' libraries take. */
export const newSecret = (): string => PREFIX + randomBytes(SECRET_BYTES).toString('base64')

/** What is sent, the same for each try. */
export type Message = { id: string; body: string }

/**
 * Headers of one try, as https://www.standardwebhooks.com has them: the id stays, the time is that of the try, and each secret signs.
 * @param secrets `whsec_` + base64, the newest first
 */
export const signedHeaders = ({ id, body }: Message, secrets: string[], now: Date): Record<string, string> => {
  const timestamp = String(Math.floor(now.getTime() / 1_000))
  const signatures = secrets.map((secret) => {
    const key = Buffer.from(secret.slice(PREFIX.length), 'base64')
    return `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')}`
  })
  return { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signatures.join(' ') }
}
