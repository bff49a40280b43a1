import { createWriteStream } from 'node:fs'
import { mkdir, opendir, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { AppError } from '../../domain/errors.ts'
import type { CheckpointManifest, CheckpointOmission } from '../../domain/supervisor-protocol.ts'
import { type Archive, type ArchiveEntry, EntryLost, createArchive } from './archive.ts'
import { type ChangedFile, type Changes, findChanges } from './changes.ts'
import { GitFailed, createGit } from './git.ts'
import { BUNDLE, CONVERSATION, PLAN, type Plan, WORKSPACE } from './plan.ts'
import { readRepository } from './repository.ts'

export type CaptureOptions = {
  workspace: string
  /** Commit of the clone; null without a repository. */
  base: string | null
  env: Record<string, string>
  harness: string
  conversation: string
  /** Writes what the harness keeps of it into an empty folder. */
  save: (folder: string) => Promise<void>
  /** Of this checkpoint; what is in it is of no use afterwards. */
  folder: string
  maxBytes: number
  signal: AbortSignal
}
export type Captured = { file: string; bytes: number; manifest: CheckpointManifest }

/** Added at once: small files compress better together, and what does not fit is tried one by one. */
const groupBytes = 1_024 * 1_024
const groupFiles = 200
/** Of what is not in it. A header has at most 16 KB, and base64 makes a third more of it. */
const omittedBytesMax = 6_000

const sizeOf = (file: ChangedFile): number => ('size' in file ? file.size : 0)

const conversationEntries = async (folder: string): Promise<ArchiveEntry[]> => {
  const entries: ArchiveEntry[] = []
  for await (const each of await opendir(folder, { recursive: true })) {
    if (!each.isFile()) continue
    const file = path.join(each.parentPath, each.name)
    const { size, mtime } = await stat(file)
    entries.push({ name: `${CONVERSATION}/${path.relative(folder, file)}`, mode: 0o600, mtime, file, size })
  }
  return entries
}

/** @returns false when it is larger than that */
const writeBundle = async (bundle: AsyncIterable<Buffer>, file: string, maxBytes: number): Promise<boolean> => {
  let size = 0
  class TooLarge extends Error {}
  async function* limited(): AsyncGenerator<Buffer> {
    for await (const bytes of bundle) {
      if ((size += bytes.length) > maxBytes) throw new TooLarge()
      yield bytes
    }
  }
  try {
    await pipeline(limited(), createWriteStream(file, { mode: 0o600 }))
    return true
  } catch (error) {
    if (error instanceof TooLarge) return false
    throw error
  }
}

type Kept = { changes: Changes; git: Plan['git']; bundle: string | null }

/** What differs from the clone, by what git says; all of it, where the agent has done away with the repository. */
const readWorkspace = async (options: CaptureOptions): Promise<Kept> => {
  const { workspace, base, folder, maxBytes, signal } = options
  if (base === null) return { changes: await findChanges(options, null), git: null, bundle: null }
  const git = createGit({ ...options, workTree: workspace })
  try {
    const changes = await findChanges(options, base)
    const { repository, bundle, done } = await readRepository(git, base)
    try {
      const file = path.join(folder, 'bundle')
      const fits = bundle !== null && (await writeBundle(bundle, file, maxBytes))
      if (bundle === null || fits) return { changes, git: repository, bundle: fits ? file : null }
      changes.omitted.push({ path: '.git', reason: 'over_limit', bytes: maxBytes })
      return { changes, git: null, bundle: null }
    } finally {
      await done()
    }
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof GitFailed)) throw error
    const changes = await findChanges(options, null)
    changes.files = changes.files.filter(({ path }) => !path.startsWith('.git/'))
    changes.omitted.push({ path: '.git', reason: 'unreadable', bytes: 0 })
    return { changes, git: null, bundle: null }
  }
}

const entryOf = (workspace: string, { path: name, mode, mtime, ...file }: ChangedFile): ArchiveEntry => {
  const head = { name: `${WORKSPACE}/${name}`, mode, mtime }
  return 'link' in file ? { ...head, link: file.link } : { ...head, file: path.join(workspace, name), size: file.size }
}

const groupsOf = (files: ChangedFile[]): ChangedFile[][] => {
  const groups: ChangedFile[][] = []
  let bytes = groupBytes
  for (const file of files) {
    const last = groups.at(-1)
    if (last !== undefined && last.length < groupFiles && bytes + sizeOf(file) <= groupBytes) last.push(file)
    else groups.push([file])
    bytes = last === groups.at(-1) ? bytes + sizeOf(file) : sizeOf(file)
  }
  return groups
}

/** Smallest first, so that the largest are left out. @returns how many are in it */
const addFiles = async (archive: Archive, workspace: string, changes: Changes): Promise<number> => {
  const { files, omitted } = changes
  let added = 0
  let isFull = false
  const omit = (file: ChangedFile, reason: CheckpointOmission['reason']): void =>
    void omitted.push({ path: file.path, reason, bytes: sizeOf(file) })

  const addGroup = async (group: ChangedFile[]): Promise<void> => {
    if (isFull) return group.forEach((file) => omit(file, 'over_limit'))
    let lost = false
    try {
      const fits = await archive.add(group.map((file) => entryOf(workspace, file)))
      if (fits) return void (added += group.length)
    } catch (error) {
      if (!(error instanceof EntryLost)) throw error
      lost = true
    }
    if (group.length > 1) for (const file of group) await addGroup([file])
    else if (lost) omit(group[0]!, 'unreadable')
    else {
      isFull = true
      omit(group[0]!, 'over_limit')
    }
  }
  for (const group of groupsOf(files.toSorted((a, b) => sizeOf(a) - sizeOf(b)))) await addGroup(group)
  return added
}

/** As many as fit into a header, largest first. */
const named = ({ omitted, unnamed }: Changes): Pick<CheckpointManifest, 'omitted' | 'omitted_more'> => {
  const sorted = omitted.toSorted((a, b) => b.bytes - a.bytes)
  let bytes = 0
  const first = sorted.findIndex((each) => (bytes += Buffer.byteLength(JSON.stringify(each))) > omittedBytesMax)
  const count = first < 0 ? sorted.length : first
  return { omitted: sorted.slice(0, count), omitted_more: sorted.length - count + unnamed }
}

/** Writes a checkpoint into `folder`. Nothing of it is ever whole in memory. @throws AppError `too_large` */
export const capture = async (options: CaptureOptions): Promise<Captured> => {
  const { workspace, base, harness, conversation, folder, maxBytes, signal } = options
  const saved = path.join(folder, 'conversation')
  await mkdir(saved, { recursive: true })
  await options.save(saved)
  const { changes, git, bundle } = await readWorkspace(options)
  const file = path.join(folder, 'archive')
  await using archive = await createArchive(file, { maxBytes, signal })
  const now = new Date()
  const plan = { version: 1, harness: { id: harness }, conversation, workspace, base_commit: base, git } as const
  const whole: Plan = { ...plan, deleted: changes.deleted }
  const hasPlan = await archive.add([
    { name: PLAN, mode: 0o600, mtime: now, bytes: Buffer.from(JSON.stringify(whole)) },
  ])
  if (!hasPlan) throw new AppError('too_large', `no checkpoint of this workspace fits into ${maxBytes} bytes`)
  const entries = await conversationEntries(saved)
  const hasConversation = entries.length > 0 && (await archive.add(entries))
  if (bundle !== null) {
    const { size } = await stat(bundle)
    const entry = { name: BUNDLE, mode: 0o600, mtime: now, file: bundle, size }
    if (!(await archive.add([entry]))) changes.omitted.push({ path: '.git', reason: 'over_limit', bytes: size })
  }
  const files = await addFiles(archive, workspace, changes)
  await archive.end()
  await rm(saved, { recursive: true })
  const manifest: CheckpointManifest = {
    version: 1,
    harness: { id: harness },
    conversation,
    has_conversation: hasConversation,
    base_commit: base,
    files,
    bytes: archive.unpacked(),
    ...named(changes),
  }
  return { file, bytes: (await stat(file)).size, manifest }
}
