import type * as acp from '@agentclientprotocol/sdk/unstable'
import type { MessagePart } from '../../domain/turn.ts'

const DATA_URL = /^data:([^;,]*)(?:;[^;,]*)*;base64,(.*)$/s

type ImageSource = { type?: string; media_type?: string; data?: string; url?: string }

const textOf = (value: unknown): string => (typeof value === 'string' ? value : '')

/** An image in a message is `file` with a data URL, as opencode has it, or `image` with a source, as Anthropic has it. */
const imageOf = (part: MessagePart): { mimeType: string; data: string } | null => {
  const source = part['source'] as ImageSource | undefined
  if (source?.type === 'base64') return { mimeType: source.media_type ?? 'image/png', data: source.data ?? '' }
  const [, type, data] = DATA_URL.exec(textOf(part['url'])) ?? []
  if (data === undefined) return null
  return { mimeType: textOf(part['mime']) || type || 'application/octet-stream', data }
}

const nameOf = (part: MessagePart): string => textOf(part['filename']) || 'attachment'

const fileBlock = (part: MessagePart, { image, embeddedContext }: acp.PromptCapabilities): acp.ContentBlock => {
  const file = imageOf(part)
  const url = textOf(part['url'])
  if (file === null) return { type: 'resource_link', name: nameOf(part), uri: url }
  if (file.mimeType.startsWith('image/') && image === true) return { type: 'image', ...file }
  const uri = `attachment:///${encodeURIComponent(nameOf(part))}`
  if (embeddedContext === true && file.mimeType.startsWith('text/'))
    return {
      type: 'resource',
      resource: { uri, mimeType: file.mimeType, text: Buffer.from(file.data, 'base64').toString('utf8') },
    }
  if (embeddedContext === true) return { type: 'resource', resource: { uri, mimeType: file.mimeType, blob: file.data } }
  throw new Error(`the harness cannot read attachments of type ${file.mimeType}: ${nameOf(part)}`)
}

/** A message as the agent takes it. @throws Error for an attachment that it cannot read */
export const contentOf = (parts: MessagePart[], capabilities: acp.PromptCapabilities = {}): acp.ContentBlock[] =>
  parts.map((part) =>
    part.type === 'file' || part.type === 'image'
      ? fileBlock(part, capabilities)
      : { type: 'text', text: textOf(part['text']) },
  )

/** The words of a piece; none in a picture. */
export const wordsOf = (content: acp.ContentBlock): string => ('text' in content ? textOf(content.text) : '')

/** A piece of a message that the agent tells again, in our form. */
export const partOf = (content: acp.ContentBlock): MessagePart => {
  if (content.type === 'image')
    return { type: 'file', mime: content.mimeType, url: `data:${content.mimeType};base64,${content.data}` }
  if (content.type === 'resource_link') return { type: 'file', filename: content.name, url: content.uri }
  return { type: 'text', text: wordsOf(content) }
}
