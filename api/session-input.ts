import { AppError } from '../domain/errors.ts'
import type { MessagePart } from '../domain/turn.ts'
import type { Attachment } from './schemas/attachment.ts'
import type { MessagePatch, MessageSend } from './schemas/message.ts'

const filePart = ({ name, mime_type, base64 }: Attachment, index: number): MessagePart => ({
  type: 'file',
  mime: mime_type,
  filename: name ?? `attachment-${index + 1}.${mime_type.slice('image/'.length)}`,
  url: `data:${mime_type};base64,${base64}`,
})

const textPart = (text: string | undefined): MessagePart[] =>
  text === undefined || text === '' ? [] : [{ type: 'text', text }]

/** Images have one form in here, whatever the one in which they were sent. */
const asStored = (part: MessagePart, index: number): MessagePart => {
  if (part.type !== 'image') return part
  const { media_type, data } = part['source'] as { media_type: Attachment['mime_type']; data: string }
  return filePart({ mime_type: media_type, base64: data }, index)
}

/** The parts of a message: attachments after the text, or the given parts, or the text. */
export const partsOf = ({ text, parts, attachments = [] }: MessageSend): MessagePart[] => {
  if (attachments.length > 0) return [...textPart(text), ...attachments.map(filePart)]
  return parts?.map(asStored) ?? textPart(text)
}

/** @throws AppError `invalid` when nothing would be left of it */
export const changedParts =
  ({ text, parts, attachments }: MessagePatch) =>
  (before: MessagePart[]): MessagePart[] => {
    if (parts !== undefined) return parts.map(asStored)
    const words = text === undefined ? before.filter(({ type }) => type === 'text') : textPart(text)
    const files = attachments === undefined ? before.filter(({ type }) => type === 'file') : attachments.map(filePart)
    const others = before.filter(({ type }) => type !== 'text' && type !== 'file')
    const after = [...words, ...others, ...files]
    if (after.length > 0) return after
    const message = 'leaves nothing of the message; delete it instead'
    throw new AppError('invalid', `text: ${message}`, { details: [{ path: 'text', message }] })
  }

/** Parts of a session's first message; empty when it has none. */
export const initialParts = (prompt: string | undefined, attachments: Attachment[] = []): MessagePart[] => [
  ...textPart(prompt),
  ...attachments.map(filePart),
]
