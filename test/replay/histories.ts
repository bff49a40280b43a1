import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = fileURLToPath(new URL('../histories', import.meta.url))

type Payload = { metadata?: unknown; data?: string }
type RecordedEvent = {
  activityTaskScheduledEventAttributes?: { activityType: { name: string } }
  markerRecordedEventAttributes?: { markerName: string; details?: { data?: { payloads?: Payload[] } } }
  [name: string]: unknown
}
export type RecordedHistory = { name: string; text: string; history: { events: RecordedEvent[] } }

/** The recorded histories, by name. */
export const recordedHistories = (): RecordedHistory[] =>
  readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .map((file) => {
      const text = readFileSync(path.join(folder, file), 'utf8')
      return { name: path.basename(file, '.json'), text, history: JSON.parse(text) as RecordedHistory['history'] }
    })

const textOf = (payload: Payload): string => Buffer.from(payload.data ?? '', 'base64').toString('utf8')

/** Names of the activities that a history has been through; those that the worker ran by itself are markers. */
export const activitiesIn = ({ history }: RecordedHistory): string[] =>
  history.events.flatMap((event) => {
    const scheduled = event.activityTaskScheduledEventAttributes?.activityType.name
    if (scheduled !== undefined) return [scheduled]
    const payloads = event.markerRecordedEventAttributes?.details?.data?.payloads ?? []
    return payloads.flatMap((payload) => {
      const { activity_type } = JSON.parse(textOf(payload)) as { activity_type?: string }
      return activity_type === undefined ? [] : [activity_type]
    })
  })

/** All that a history says, its payloads too. */
export const saidIn = ({ text }: RecordedHistory): string =>
  `${text}\n${[...text.matchAll(/"data":"([^"]*)"/g)].map(([, data]) => textOf({ data: data ?? '' })).join('\n')}`
