import type { MessagePart } from '../domain/turn.ts'
import type { MessageSend } from './schemas/message.ts'
import type { Attachment } from './schemas/session.ts'

const filePart = ({ name, mime_type, base64 }: Attachment, index: number): MessagePart => ({
  type: 'file',
  mime: mime_type,
  filename: name ?? `attachment-${index + 1}.${mime_type.slice('image/'.length)}`,
  url: `data:${mime_type};base64,${base64}`,
})

const textPart = (text: string | undefined): MessagePart[] =>
  text === undefined || text === '' ? [] : [{ type: 'text', text }]

/** The parts of a message: attachments after the text, or the given parts, or the text. */
export const partsOf = ({ text, parts, attachments = [] }: MessageSend): MessagePart[] => {
  if (attachments.length > 0) return [...textPart(text), ...attachments.map(filePart)]
  return parts ?? textPart(text)
}

/** Parts of a session's first message; empty when it has none. */
export const initialParts = (prompt: string | undefined, attachments: Attachment[] = []): MessagePart[] => [
  ...textPart(prompt),
  ...attachments.map(filePart),
]
