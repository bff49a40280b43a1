import {
  allHandlersFinished,
  condition,
  continueAsNew,
  setCurrentDetails,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow'
import type { DeliveryStep } from '../activities/webhook.ts'
import { continueAsNewEvents } from '../domain/limits.ts'
import { wake } from './messages.ts'
import type { WebhookInput } from './messages.ts'
import { delivering } from './steps.ts'

const describeDelivery = (step: DeliveryStep): string => {
  const { is, attempts, error } = step
  const rows = [
    ['Status', is],
    ['Tries', String(attempts)],
    ...(error === null ? [] : [['Last failure', error.replaceAll(/\s+/g, ' ').replaceAll('|', '\\|')]]),
    ...(is === 'pending' ? [['Waits for', `${Math.round(step.waitMs / 1_000)} s`]] : []),
  ]
  return ['| | |', '|---|---|', ...rows.map(([name, value]) => `| ${name} | ${value} |`)].join('\n')
}

/**
 * One event on its way to one webhook: try, wait, try again, until it is delivered or given up. The row says when the next try is due and how many there were; this waits
 * for it. See docs/webhooks.md.
 */
export async function webhook(input: WebhookInput): Promise<void> {
  let woken = false
  setHandler(wake, () => {
    woken = true
  })
  for (;;) {
    woken = false
    const step = await delivering.attemptDelivery(input.deliveryId)
    setCurrentDetails(describeDelivery(step))
    // It may have been asked for again a moment ago.
    if (step.is !== 'pending' && !woken) return
    const { continueAsNewSuggested, historyLength } = workflowInfo()
    if (continueAsNewSuggested || historyLength > continueAsNewEvents) {
      await condition(allHandlersFinished)
      await continueAsNew<typeof webhook>(input)
    }
    if (step.is === 'pending' && !woken) await condition(() => woken, step.waitMs)
  }
}
