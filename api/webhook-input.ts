import { getAgent } from '../db/agents.ts'
import type { WebhookRow } from '../db/entities/webhook.ts'
import { getWebhook } from '../db/webhooks.ts'
import { AppError } from '../domain/errors.ts'
import { isId } from '../domain/names.ts'
import { checkHost, isRefused } from '../webhooks/address.ts'
import type { ApiDeps } from './deps.ts'

const reject = (path: string, message: string): never => {
  throw new AppError('invalid', `${path}: ${message}`, { details: [{ path, message }] })
}

/**
 * What can be said of a receiver before anything is sent to it. A name is looked up with each try, and refused then.
 * @throws AppError `invalid`
 */
const checkUrl = ({ config }: Pick<ApiDeps, 'config'>, url: string): void => {
  if (config.webhooks.allowPrivate) return
  const { protocol, hostname } = new URL(url)
  const allowed = 'WEBHOOK_ALLOW_PRIVATE_TARGETS=true allows others'
  if (protocol !== 'https:') reject('url', `must be an https URL (${allowed})`)
  if (/(^|\.)localhost\.?$/.test(hostname)) reject('url', `must be a public host (${allowed})`)
  try {
    checkHost(hostname)
  } catch (error) {
    if (!isRefused(error)) throw error
    reject('url', `must be a public address (${allowed})`)
  }
}

/** @throws AppError `invalid` for a receiver that nothing may be sent to, and for an agent that is not there */
export const checkWebhook = async (
  deps: Pick<ApiDeps, 'config' | 'sql'>,
  given: { url?: string; agent_id?: string | null | undefined },
): Promise<void> => {
  if (given.url !== undefined) checkUrl(deps, given.url)
  const id = given.agent_id ?? null
  if (id !== null && (!isId(id) || (await getAgent(deps.sql, id)) === null))
    reject('agent_id', 'must be the id of an agent')
}

/** @throws AppError `not_found`, also for what is no id at all */
export const findWebhook = async ({ sql }: Pick<ApiDeps, 'sql'>, id: string | undefined): Promise<WebhookRow> => {
  const webhook = id !== undefined && isId(id) ? await getWebhook(sql, id) : null
  if (webhook === null) throw new AppError('not_found', `webhook ${id} not found`)
  return webhook
}
