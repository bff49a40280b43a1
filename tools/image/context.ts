import { createHash, type Hash } from 'node:crypto'
import { lstat, readdir, readFile, readlink } from 'node:fs/promises'
import path from 'node:path'

/** The folder whose files a Dockerfile may copy, without what its `.dockerignore` names. */
export type Context = { root: string; isIgnored: (relative: string) => boolean }

const matches = (relative: string, pattern: string): boolean => {
  const parts = relative.split('/')
  return parts.some((_, index) => path.matchesGlob(parts.slice(0, index + 1).join('/'), pattern))
}

export const openContext = async (root: string): Promise<Context> => {
  const text = await readFile(path.join(root, '.dockerignore'), 'utf8').catch(() => '')
  const patterns = text.split('\n').flatMap((line) => {
    const pattern = line.trim()
    return pattern === '' || pattern.startsWith('#') ? [] : [pattern]
  })
  const isIgnored = (relative: string): boolean => {
    let ignored = false
    for (const pattern of patterns)
      if (pattern.startsWith('!')) ignored = ignored && !matches(relative, pattern.slice(1))
      else ignored ||= matches(relative, pattern)
    return ignored
  }
  return { root, isIgnored }
}

const addTo = async (hash: Hash, context: Context, relative: string): Promise<void> => {
  if (relative !== '' && context.isIgnored(relative)) return
  const file = path.join(context.root, relative)
  const stats = await lstat(file)
  hash.update(`${relative}\0${(stats.mode & 0o111) === 0 ? 'file' : 'executable'}\0`)
  if (stats.isDirectory())
    for (const name of (await readdir(file)).toSorted()) await addTo(hash, context, path.posix.join(relative, name))
  else hash.update(stats.isSymbolicLink() ? await readlink(file) : await readFile(file))
}

/** What the contents of these files and folders come to. */
export const hashOf = async (context: Context, sources: string[]): Promise<string> => {
  const hash = createHash('sha256')
  for (const source of sources) await addTo(hash, context, path.posix.normalize(source).replace(/^\.?\/?|\/$/g, ''))
  return hash.digest('hex')
}
