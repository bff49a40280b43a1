import type { HarnessEvent } from './harness.ts'

type Properties = { sessionID?: string; messageID?: string; info?: Info; part?: Part }
type Info = { id?: string; sessionID?: string; role?: string; modelID?: string; model?: { modelID?: string } }
type Part = { id?: string; messageID?: string; sessionID?: string; type?: string }

/** The conversation an event belongs to, or null for the harness as a whole. */
export const conversationOf = (event: HarnessEvent): string | null => {
  const { sessionID, info, part } = event.properties as Properties
  return sessionID ?? part?.sessionID ?? info?.sessionID ?? null
}

/** The message an event is about, or null. */
export const messageOf = (event: HarnessEvent): string | null => {
  const { messageID, info, part } = event.properties as Properties
  return messageID ?? part?.messageID ?? (event.type.startsWith('message.') ? info?.id : undefined) ?? null
}

/** The harness knows one model by a name of ours; readers see the real one. */
export const withModelName = <T extends Record<string, unknown>>(info: T, model: string): T => {
  const named = info as T & Info
  return {
    ...info,
    ...(named.modelID === undefined ? {} : { modelID: model }),
    ...(named.model?.modelID === undefined ? {} : { model: { ...named.model, modelID: model } }),
  }
}

export const withModelNameInEvent = (event: HarnessEvent, model: string): HarnessEvent => {
  const info = event.properties['info']
  if (event.type !== 'message.updated' || info === null || typeof info !== 'object') return event
  return { ...event, properties: { ...event.properties, info: withModelName(info as Record<string, unknown>, model) } }
}
