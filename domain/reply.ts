import type { MessagePart, TurnReply } from './turn.ts'

/** One event of a harness' bus, in opencode's form. */
type BusEvent = { type: string; properties: Record<string, unknown> }

type Info = Record<string, unknown> & { id?: string; role?: string }
type Updated = { info?: Info; part?: MessagePart & { id?: string; messageID?: string } }
type Delta = { messageID?: string; partID?: string; field?: string; delta?: string }

/** A turn's reply amid the turn. `earlier`: infos of the messages before the last one, in order; the reply itself has the last one's. */
export type ReplySoFar = { reply: TurnReply | null; earlier: Info[] }

/**
 * Gathers a turn's reply from its events: the parts of all assistant messages in order, under the `info` of the last one. A harness begins a
 * new message after each round of tools; to the reader they are one reply.
 * @param from where another collector stopped
 */
export const createReplyCollector = (from: ReplySoFar = { reply: null, earlier: [] }) => {
  const infos = new Map<string, Info>()
  const parts = new Map<string, Map<string, MessagePart>>()

  const setInfo = (info: Info | undefined): void => {
    if (info?.id !== undefined && info.role === 'assistant') infos.set(info.id, info)
  }
  const setPart = (part: Updated['part']): void => {
    if (part?.id === undefined || part.messageID === undefined) return
    const own = parts.get(part.messageID) ?? new Map<string, MessagePart>()
    own.set(part.id, { ...part })
    parts.set(part.messageID, own)
  }
  for (const info of from.earlier) setInfo(info)
  setInfo(from.reply?.info)
  for (const part of from.reply?.parts ?? []) setPart(part)

  const reply = (): TurnReply | null => {
    const last = [...infos.values()].at(-1)
    if (last === undefined) return null
    return { info: last, parts: [...infos.keys()].flatMap((id) => [...(parts.get(id)?.values() ?? [])]) }
  }
  return {
    hear({ type, properties }: BusEvent): void {
      const { info, part } = properties as Updated
      if (type === 'message.updated') setInfo(info)
      if (type === 'message.part.updated') setPart(part)
      const { messageID = '', partID = '', field = '', delta = '' } = properties as Delta
      if (type === 'message.part.delta') {
        const own = parts.get(messageID)?.get(partID)
        if (own !== undefined) own[field] = `${typeof own[field] === 'string' ? own[field] : ''}${delta}`
      }
      if (type === 'message.part.removed') parts.get(messageID)?.delete(partID)
    },
    reply,
    soFar: (): ReplySoFar => ({ reply: reply(), earlier: [...infos.values()].slice(0, -1) }),
  }
}
