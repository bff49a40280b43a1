import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { AppError } from '../domain/errors.ts'

const PREFIX = 'enc:v1:'
const IV_BYTES = 12
const TAG_BYTES = 16

/** Encrypts what is stored of a user's secrets. */
export type Sealer = {
  /** @returns `enc:v1:` + base64(iv ‖ tag ‖ ciphertext); the text itself when there is no key */
  seal(text: string): string
  /** @throws AppError `internal` when the key is missing or is not the one that sealed it */
  open(stored: string): string
}

/** AES-256-GCM under a key of 32 bytes. Without a key values are stored as they are, which the process warns of at start. */
export const createSealer = (key: Buffer | null): Sealer => ({
  seal(text) {
    if (key === null && text.startsWith(PREFIX))
      throw new AppError('invalid', `A value that starts with "${PREFIX}" can only be stored with an ENCRYPTION_KEY`)
    if (key === null) return text
    const iv = randomBytes(IV_BYTES)
    const cipher = createCipheriv('aes-256-gcm', key, iv)
    const sealed = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()])
    return PREFIX + Buffer.concat([iv, cipher.getAuthTag(), sealed]).toString('base64')
  },
  open(stored) {
    if (!stored.startsWith(PREFIX)) return stored
    if (key === null)
      throw new AppError(
        'internal',
        'A stored secret is encrypted, and ENCRYPTION_KEY is not set. Set the key that it was stored with.',
      )
    const bytes = Buffer.from(stored.slice(PREFIX.length), 'base64')
    const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, IV_BYTES))
    decipher.setAuthTag(bytes.subarray(IV_BYTES, IV_BYTES + TAG_BYTES))
    try {
      return Buffer.concat([decipher.update(bytes.subarray(IV_BYTES + TAG_BYTES)), decipher.final()]).toString('utf8')
    } catch (cause) {
      throw new AppError(
        'internal',
        'A stored secret cannot be decrypted: ENCRYPTION_KEY is not the key that it was stored with.',
        { cause },
      )
    }
  },
})
