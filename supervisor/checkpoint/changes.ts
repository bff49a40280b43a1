import type { Stats } from 'node:fs'
import { lstat, opendir, readlink } from 'node:fs/promises'
import path from 'node:path'
import type { CheckpointOmission } from '../../domain/supervisor-protocol.ts'
import { checkpointFileMaxBytes, checkpointFilesMax } from '../../domain/limits.ts'
import { type Git, createGit } from './git.ts'
import { isInside, leadsOut } from './paths.ts'

/** A file or a link that is not as in the clone. */
export type ChangedFile = { path: string; mode: number; mtime: Date } & ({ size: number } | { link: string })

/** How a workspace differs from the clone, or all of it where there is no clone. */
export type Changes = {
  files: ChangedFile[]
  deleted: string[]
  omitted: CheckpointOmission[]
  /** Of those that are too many to be named. */
  unnamed: number
}

type Place = { workspace: string; env: Record<string, string>; signal: AbortSignal }

const statOf = (file: string): Promise<Stats | null> => lstat(file).catch(() => null)

/** Files of a folder, relative to the workspace, in no order. What a repository in it ignores is left out. */
async function* filesBelow(place: Place, folder: string): AsyncGenerator<string> {
  const absolute = path.join(place.workspace, folder)
  const within = (name: string): string => (folder === '' ? name : `${folder}/${name}`)
  const gitDir = path.join(absolute, '.git')
  if ((await statOf(gitDir))?.isDirectory() === true) {
    const git = createGit({ ...place, workTree: absolute, gitDir })
    try {
      for await (const name of git.list('ls-files', '-z', '--cached', '--others', '--exclude-standard'))
        if (name.endsWith('/')) yield* filesBelow(place, within(name.slice(0, -1)))
        else yield within(name)
      yield* everyFile(place, within('.git'))
      return
    } catch (error) {
      if (place.signal.aborted) throw error
      // No repository after all; what was told twice is taken once.
    }
  }
  for await (const each of await opendir(absolute))
    if (each.isDirectory()) yield* filesBelow(place, within(each.name))
    else yield within(each.name)
}

async function* everyFile(place: Place, folder: string): AsyncGenerator<string> {
  for await (const each of await opendir(path.join(place.workspace, folder)))
    if (each.isDirectory()) yield* everyFile(place, `${folder}/${each.name}`)
    else yield `${folder}/${each.name}`
}

async function* changedPaths(place: Place, git: Git, base: string): AsyncGenerator<string> {
  yield* git.list('diff', '--name-only', '-z', '--no-renames', '--no-ext-diff', base, '--')
  for await (const name of git.list('ls-files', '-z', '--others', '--exclude-standard'))
    if (name.endsWith('/')) yield* filesBelow(place, name.slice(0, -1))
    else yield name
}

const createChanges = ({ workspace }: Place, hasBase: boolean) => {
  const changes: Changes = { files: [], deleted: [], omitted: [], unnamed: 0 }
  const seen = new Set<string>()
  const omit = (path: string, reason: CheckpointOmission['reason'], bytes: number): void =>
    void changes.omitted.push({ path, reason, bytes })

  return {
    changes,
    async take(name: string): Promise<void> {
      if (seen.has(name)) return
      if (seen.size >= checkpointFilesMax) return void (changes.unnamed += 1)
      seen.add(name)
      const found = await statOf(path.join(workspace, name))
      // In place of what is not UTF-8 there is a mark, and no such file.
      if (!isInside(name) || (found === null && name.includes('\uFFFD'))) return omit(name, 'unreadable', 0)
      // One of the clone that is a folder now makes room by the files in it.
      if (found === null || (found.isDirectory() && !(await statOf(path.join(workspace, name, '.git')))))
        return void (hasBase && changes.deleted.push(name))
      const { mtime, size, mode: all } = found
      const file = { path: name, mode: all & 0o777, mtime }
      if (found.isSymbolicLink()) {
        const link = await readlink(path.join(workspace, name)).catch(() => '')
        return leadsOut(name, link) ? omit(name, 'leads_out', 0) : void changes.files.push({ ...file, link })
      }
      if (!found.isFile()) return omit(name, 'unreadable', 0)
      if (size > checkpointFileMaxBytes) return omit(name, 'too_large', size)
      changes.files.push({ ...file, size })
    },
  }
}

/** @param base the commit of the clone; null where there is none, or its repository is gone */
export const findChanges = async (place: Place, base: string | null): Promise<Changes> => {
  const { changes, take } = createChanges(place, base !== null)
  const git = createGit({ ...place, workTree: place.workspace })
  for await (const name of base === null ? filesBelow(place, '') : changedPaths(place, git, base)) {
    place.signal.throwIfAborted()
    await take(name)
  }
  return changes
}
