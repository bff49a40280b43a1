/** What may be attached to a message: the images that the gateway's models read. */
export const IMAGE_TYPES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp'] as const
export type ImageType = (typeof IMAGE_TYPES)[number]

export const isImageType = (mime: string): mime is ImageType => (IMAGE_TYPES as readonly string[]).includes(mime)

/** How files of each type begin, as base64; WebP has its size in the middle of that. */
const BEGINNINGS: Record<ImageType, RegExp> = {
  'image/png': /^iVBORw0KGgo/,
  'image/jpeg': /^\/9j\//,
  'image/gif': /^R0lGOD[dl]h/,
  'image/webp': /^UklGR.{6}XRUJQ/,
}

/** Whether something looks like an image of that type, by its first bytes. */
export const beginsLike = (mime: ImageType, base64: string): boolean => BEGINNINGS[mime].test(base64)

/** What an image may weigh, in bytes. */
export const imageMaxBytes = 5 * 1024 * 1024
export const imageMaxBase64 = Math.ceil(imageMaxBytes / 3) * 4

/** Images of one message. */
export const imagesMax = 10
