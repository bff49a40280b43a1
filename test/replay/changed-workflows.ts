import { sleep } from '@temporalio/workflow'
import type { Activities } from '../../activities/index.ts'
import { janitor as lookOfJanitor } from '../../workflows/janitor.ts'
import type { PoolInput, SessionInput, WebhookInput } from '../../workflows/messages.ts'
import { pool as poolOfAgent } from '../../workflows/pool.ts'
import { session as lifeOfSession } from '../../workflows/session.ts'
import { webhook as wayOfDelivery } from '../../workflows/webhook.ts'

/** The workflows with a change that no running one survives: a step that was not there before. */
export async function session(input: SessionInput): Promise<void> {
  await sleep('1s')
  await lifeOfSession(input)
}
export async function pool(input: PoolInput): Promise<void> {
  await sleep('1s')
  await poolOfAgent(input)
}
export async function janitor(): ReturnType<Activities['sweep']> {
  await sleep('1s')
  return lookOfJanitor()
}
export async function webhook(input: WebhookInput): Promise<void> {
  await sleep('1s')
  await wayOfDelivery(input)
}
