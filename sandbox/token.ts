import { createHmac } from 'node:crypto'

/**
 * Bearer token of one sandbox' supervisor. Derived, so nothing is stored; it opens no other sandbox.
 * @returns base64url, 43 characters
 */
export const sandboxToken = (masterKey: string, sandboxId: string): string => {
  const key = createHmac('sha256', masterKey).update('lap sandbox token v1').digest()
  return createHmac('sha256', key).update(sandboxId).digest('base64url')
}
