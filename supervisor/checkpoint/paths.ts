const pathBytesMax = 4_096

/** Whether it is a plain relative path: forward, without empty parts. */
export const isInside = (path: string): boolean =>
  path !== '' &&
  !path.includes('\0') &&
  Buffer.byteLength(path) <= pathBytesMax &&
  path.split('/').every((part) => part !== '' && part !== '.' && part !== '..')

/**
 * Whether a link leads out of the folder that `path` is relative to. Only at its begin may its target go up, past folders that are real: behind another
 * link `..` is elsewhere than it reads.
 */
export const leadsOut = (path: string, target: string): boolean => {
  if (target === '' || target.startsWith('/') || target.includes('\0')) return true
  const parts = target.split('/').filter((part) => part !== '' && part !== '.')
  const down = parts.findIndex((part) => part !== '..')
  const ups = down < 0 ? parts.length : down
  return ups >= path.split('/').length || parts.slice(ups).includes('..')
}
