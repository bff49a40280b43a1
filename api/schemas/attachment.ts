import { z } from 'zod'
import { beginsLike, IMAGE_TYPES, imageMaxBase64, imageMaxBytes, imagesMax, isImageType } from '../../domain/image.ts'
import { bodyMaxBytes } from '../../domain/limits.ts'
import { strict } from './common.ts'

const types = IMAGE_TYPES.join(', ')
const tooLarge = `must be at most ${imageMaxBytes / 1_048_576} MiB decoded`
const tooMany = `must have at most ${imagesMax} images`
const text = (max: number) => z.string('must be a string').max(max, `must have at most ${max} characters`)
export const messageTextMax = 1_000_000

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

/** What is wrong with an image, if anything is. */
const imageFault = (mime: string, base64: string): string | null => {
  if (!isImageType(mime)) return `must be one of ${types}`
  if (base64 === '') return 'must not be empty'
  if (base64.length > imageMaxBase64) return tooLarge
  if (!BASE64.test(base64)) return 'must be base64'
  return beginsLike(mime, base64) ? null : `is not the ${mime} that it is said to be`
}

export const Attachment = strict({
  name: text(255).optional(),
  mime_type: z.enum(IMAGE_TYPES, `must be one of ${types}`),
  base64: z.string('must be base64'),
})
  .superRefine(({ mime_type, base64 }, context) => {
    const message = imageFault(mime_type, base64)
    if (message !== null) context.addIssue({ code: 'custom', path: ['base64'], message })
  })
  .meta({ id: 'Attachment' })
export type Attachment = z.output<typeof Attachment>

export const Attachments = z
  .array(Attachment)
  .max(imagesMax, tooMany)
  .describe(
    `Images, each of at most ${imageMaxBytes / 1_048_576} MiB. The whole body of a request has at most ${bodyMaxBytes / 1_048_576} MiB.`,
  )

const DATA_URL = /^data:([\w.+-]+\/[\w.+-]+);base64,/

const TextPart = z.looseObject({ type: z.literal('text'), text: text(messageTextMax) })

const FilePart = z
  .looseObject({
    type: z.literal('file'),
    mime: z.string('must be a string'),
    filename: text(255).optional(),
    url: z.string('must be a string'),
  })
  .superRefine(({ mime, url }, context) => {
    const fault = (path: string, message: string): void => context.addIssue({ code: 'custom', path: [path], message })
    if (!isImageType(mime)) return fault('mime', `must be one of ${types}`)
    const [head, named] = DATA_URL.exec(url) ?? []
    if (head === undefined) return fault('url', `must be a data URL: data:${mime};base64,…`)
    if (named !== mime) return fault('url', `must hold what mime says, ${mime}`)
    const message = imageFault(mime, url.slice(head.length))
    if (message !== null) fault('url', message)
  })

const ImagePart = z
  .looseObject({
    type: z.literal('image'),
    source: z.object({ type: z.literal('base64', 'must be base64'), media_type: z.string(), data: z.string() }),
  })
  .superRefine(({ source }, context) => {
    const message = imageFault(source.media_type, source.data)
    const path = ['source', isImageType(source.media_type) ? 'data' : 'media_type']
    if (message !== null) context.addIssue({ code: 'custom', path, message })
  })

const KNOWN = new Map<string, z.ZodType>([
  ['text', TextPart],
  ['file', FilePart],
  ['image', ImagePart],
])

/** Parts of kinds that only a harness knows pass as they are. */
const SentPart = z
  .looseObject({ type: z.string('must name the kind of the part, for instance "text"').min(1, 'must not be empty') })
  .superRefine((part, context) => {
    const { error } = KNOWN.get(part.type)?.safeParse(part) ?? {}
    for (const { message, path } of error?.issues ?? []) context.addIssue({ code: 'custom', path, message })
  })
  .meta({
    id: 'SentPart',
    description:
      '`{type: "text", text}`; an image as `{type: "file", mime, filename, url}` with a data URL, or as `{type: "image", source: {type: "base64", media_type, data}}`; or what else the harness takes.',
  })

const isImage = ({ type }: { type: string }): boolean => type === 'file' || type === 'image'

/** Parts of a message as it is sent. */
export const SentParts = z
  .array(SentPart)
  .min(1, 'must have at least one part')
  .max(100, 'must have at most 100 parts')
  .refine((parts) => parts.filter(isImage).length <= imagesMax, tooMany)
