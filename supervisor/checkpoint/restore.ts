import { createWriteStream } from 'node:fs'
import { chmod, lstat, mkdir, rm, rmdir, symlink, utimes } from 'node:fs/promises'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { checkpointFetchTimeoutMs, checkpointFilesMax, checkpointUnpackedMaxBytes } from '../../domain/limits.ts'
import type { RestoreReply } from '../../domain/supervisor-protocol.ts'
import { type Git, GitFailed, createGit } from './git.ts'
import { isInside, leadsOut } from './paths.ts'
import { BUNDLE, CONVERSATION, PLAN, type Plan, WORKSPACE, asPlan } from './plan.ts'
import { fetchCommit, moveTo, restoreRepository } from './repository.ts'
import { type Unpacked, type UnpackedEntry, unpack, wrong } from './unpack.ts'

type Problem = RestoreReply['problems'][number]
type Link = { name: string; link: string }

/** A checkpoint that has been looked through. */
export type Checked = { file: string; plan: Plan; hasBundle: boolean; hasConversation: boolean }

/** A conversation has some files as well. */
const entriesMax = 2 * checkpointFilesMax
const planBytesMax = 32 * 1_024 * 1_024

/** Where an entry of the workspace is in it; null for any other entry. */
const inWorkspace = (name: string): string | null =>
  name.startsWith(`${WORKSPACE}/`) ? name.slice(WORKSPACE.length + 1) : null

const checkEntry = (entry: UnpackedEntry): void => {
  const { name } = entry
  if (!isInside(name)) throw wrong(`the path ${JSON.stringify(name.slice(0, 200))} leads out of it`)
  const place = inWorkspace(name)
  if (place === null && name !== PLAN && name !== BUNDLE && !name.startsWith(`${CONVERSATION}/`))
    throw wrong(`it holds ${name}, which is nothing of a checkpoint`)
  if (!('link' in entry)) return
  if (place === null || leadsOut(place, entry.link)) throw wrong(`the link ${name} leads out of the workspace`)
}

const textOf = async ({ entry, content }: Unpacked): Promise<string> => {
  if ('size' in entry && entry.size > planBytesMax) throw wrong(`${entry.name} is too large`)
  const parts: Buffer[] = []
  for await (const bytes of content()) parts.push(bytes)
  return Buffer.concat(parts).toString('utf8')
}

/** A name twice, or below a file or a link: nothing that was captured has that. */
const checkNames = (names: Set<string>): void => {
  for (const name of names)
    for (let at = name.lastIndexOf('/'); at > 0; at = name.lastIndexOf('/', at - 1))
      if (names.has(name.slice(0, at))) throw wrong(`${name} is below what is no folder`)
}

/** Reads all of it before anything of it is used. @param hasRepository whether the workspace is a clone @throws AppError `invalid` */
export const checkArchive = async (file: string, hasRepository: boolean): Promise<Checked> => {
  let plan: Plan | null = null
  const found = { hasBundle: false, hasConversation: false }
  const names = new Set<string>()
  for await (const unpacked of unpack(file, checkpointUnpackedMaxBytes)) {
    const { entry } = unpacked
    checkEntry(entry)
    if (names.has(entry.name)) throw wrong(`it holds ${entry.name} twice`)
    if (names.add(entry.name).size > entriesMax) throw wrong(`it has more than ${entriesMax} entries`)
    if (hasRepository && /^\.git(\/|$)/i.test(inWorkspace(entry.name) ?? ''))
      throw wrong(`${entry.name} is git's own, and comes as a bundle`)
    if (entry.name === PLAN) plan = asPlan(await textOf(unpacked))
    else if (plan === null) throw wrong(`it does not begin with ${PLAN}`)
    if (entry.name === BUNDLE) found.hasBundle = true
    if (entry.name.startsWith(`${CONVERSATION}/`)) found.hasConversation = true
  }
  if (plan === null) throw wrong('it is empty')
  checkNames(names)
  return { file, plan, ...found }
}

const kindOf = async (target: string): Promise<'nothing' | 'folder' | 'other'> => {
  const found = await lstat(target).catch(() => null)
  return found === null ? 'nothing' : found.isDirectory() ? 'folder' : 'other'
}

/** Makes room for a path below a folder. What is in its way goes, links on the way to it as well: nothing is written through them. */
const createPlaces = (root: string) => {
  const real = new Set<string>([root])
  const folder = async (target: string): Promise<void> => {
    if (real.has(target)) return
    await folder(path.dirname(target))
    const kind = await kindOf(target)
    if (kind === 'other') await rm(target)
    if (kind !== 'folder') await mkdir(target)
    real.add(target)
  }
  return async (name: string): Promise<string> => {
    const target = path.join(root, name)
    await folder(path.dirname(target))
    await rm(target, { recursive: true, force: true })
    return target
  }
}

const writeFile = async ({ entry, content }: Unpacked, target: string): Promise<void> => {
  await pipeline(content(), createWriteStream(target, { flags: 'wx', mode: 0o600 }))
  await chmod(target, entry.mode)
  await utimes(target, entry.mtime, entry.mtime)
}

/** Of the folders on the way to a file, none is a link. */
const isReached = async (root: string, name: string): Promise<boolean> => {
  const parts = name.split('/').slice(0, -1)
  for (let i = 1; i <= parts.length; i++)
    if ((await kindOf(path.join(root, ...parts.slice(0, i)))) !== 'folder') return false
  return true
}

/** And the folders that are empty by that, as git does. */
const deleteFile = async (root: string, name: string): Promise<void> => {
  const target = path.join(root, name)
  if (!(await isReached(root, name)) || (await kindOf(target)) !== 'other') return
  await rm(target)
  for (let at = path.dirname(target); at !== root; at = path.dirname(at)) {
    const isGone = await rmdir(at).then(
      () => true,
      () => false,
    )
    if (!isGone) return
  }
}

export type ApplyOptions = {
  workspace: string
  /** Commit of the clone; null without a repository. */
  base: string | null
  env: Record<string, string>
  /** Arguments by which git asks for credentials of the origin. */
  credentials: string[]
  /** For what is not of the workspace; empty. */
  folder: string
  signal: AbortSignal
}
export type Applied = {
  files: number
  problems: Problem[]
  /** What the workspace differs from now. */
  base: string | null
}

/** For what only the origin has: one that does not answer costs the commits, and not the files as well. */
const gitOfOrigin = (options: ApplyOptions): Git => {
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(checkpointFetchTimeoutMs)])
  return createGit({ ...options, workTree: options.workspace, signal })
}

/** Puts the clone at the commit that the files differ from. @returns false: it stays where it is, and the problems say why */
const findBase = async (options: ApplyOptions, { plan }: Checked, problems: Problem[]): Promise<boolean> => {
  const say = (reason: string): void => void problems.push({ path: '.git', reason })
  if (options.base === null && plan.base_commit === null) return false
  if (options.base === null || plan.base_commit === null) {
    say('one of the two workspaces is no clone of a repository: its files are written over the other one')
    return false
  }
  const git = createGit({ ...options, workTree: options.workspace })
  try {
    await fetchCommit(gitOfOrigin(options), plan.base_commit, options.credentials)
    await moveTo(git, plan.base_commit)
    return true
  } catch (error) {
    options.signal.throwIfAborted()
    if (!(error instanceof GitFailed)) throw error
    say(
      `the commit ${plan.base_commit} cannot be had (${error.message}): the files are written over ${options.base}, without its branches and commits`,
    )
    return false
  }
}

const applyRepository = async (options: ApplyOptions, { plan, hasBundle }: Checked): Promise<Problem[]> => {
  const git = createGit({ ...options, workTree: options.workspace })
  if (plan.git === null) return [{ path: '.git', reason: 'branches, commits and index are not in the checkpoint' }]
  try {
    const origin = gitOfOrigin(options)
    for (const commit of plan.git.needs) await fetchCommit(origin, commit, options.credentials)
    const failed = await restoreRepository(git, plan.git, hasBundle ? path.join(options.folder, BUNDLE) : null)
    return failed.map((reason) => ({ path: '.git', reason }))
  } catch (error) {
    options.signal.throwIfAborted()
    if (!(error instanceof GitFailed)) throw error
    return [{ path: '.git', reason: `branches, commits and index cannot be restored: ${error.message}` }]
  }
}

/** Writes files where they belong: those of the workspace into it, the others into the folder. @returns how many, and the links, which come last */
const writeFiles = async ({ workspace, folder, signal }: ApplyOptions, file: string) => {
  const [inside, beside] = [createPlaces(workspace), createPlaces(folder)]
  const links: Link[] = []
  let files = 0
  for await (const unpacked of unpack(file, checkpointUnpackedMaxBytes)) {
    signal.throwIfAborted()
    const { entry } = unpacked
    const name = inWorkspace(entry.name)
    if ('link' in entry) links.push({ name: name ?? '', link: entry.link })
    else if (name === null) await writeFile(unpacked, await beside(entry.name))
    else {
      await writeFile(unpacked, await inside(name))
      files += 1
    }
  }
  return { files, links, inside }
}

/**
 * Brings a workspace that is as it was cloned into the state of the checkpoint, and unpacks the rest beside it. Whatever ends it midway, the same once more
 * comes to the same end.
 */
export const applyArchive = async (options: ApplyOptions, checked: Checked): Promise<Applied> => {
  const { workspace, base } = options
  const { plan, file } = checked
  const problems: Problem[] = []
  const isAtBase = await findBase(options, checked, problems)
  for (const name of plan.deleted) await deleteFile(workspace, name)
  const { files, links, inside } = await writeFiles(options, file)
  for (const { name, link } of links) await symlink(link, await inside(name))
  if (isAtBase) problems.push(...(await applyRepository(options, checked)))
  const git = createGit({ ...options, workTree: workspace })
  // Else every file that was written counts as changed until git has looked at it.
  if (isAtBase) await git.run('update-index', '-q', '--refresh').catch(() => undefined)
  return { files: plan.deleted.length + files + links.length, problems, base: isAtBase ? plan.base_commit : base }
}
