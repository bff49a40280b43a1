import type { MessagePart, TurnReply } from '../domain/turn.ts'
import type { HarnessEvent } from './harness.ts'

type Properties = { sessionID?: string; messageID?: string; info?: Info; part?: Part }
type Delta = { messageID?: string; partID?: string; field?: string; delta?: string }
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

/**
 * Gathers a turn's reply from its events: the parts of all assistant messages in order, under the `info` of the last one. A harness begins a
 * new message after each round of tools; to the reader they are one reply.
 */
export const createReplyCollector = () => {
  const infos = new Map<string, Record<string, unknown>>()
  const parts = new Map<string, Map<string, MessagePart>>()
  return {
    hear({ type, properties }: HarnessEvent): void {
      const { info, part } = properties as Properties
      if (type === 'message.updated' && info?.id !== undefined && info.role === 'assistant') infos.set(info.id, info)
      if (type === 'message.part.updated' && part?.id !== undefined && part.messageID !== undefined) {
        const own = parts.get(part.messageID) ?? new Map<string, MessagePart>()
        own.set(part.id, { ...part } as MessagePart)
        parts.set(part.messageID, own)
      }
      if (type === 'message.part.delta') {
        const { messageID, partID, field = '', delta = '' } = properties as Delta
        const own = parts.get(messageID ?? '')?.get(partID ?? '')
        if (own !== undefined) own[field] = `${typeof own[field] === 'string' ? own[field] : ''}${delta}`
      }
      if (type === 'message.part.removed') {
        const { messageID, partID } = properties as { messageID?: string; partID?: string }
        parts.get(messageID ?? '')?.delete(partID ?? '')
      }
    },
    reply(): TurnReply | null {
      const last = [...infos.values()].at(-1)
      if (last === undefined) return null
      return { info: last, parts: [...infos.keys()].flatMap((id) => [...(parts.get(id)?.values() ?? [])]) }
    },
  }
}
