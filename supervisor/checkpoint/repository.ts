import { readFile } from 'node:fs/promises'
import path from 'node:path'
import type { Git } from './git.ts'

/** Commits, branches and index of a clone, in names and hashes; what it needs beside the base commit is in a bundle. */
export type Repository = {
  /** A branch by its whole name, or a commit. */
  head: string
  /** Of branches, tags and the stash: whole name and object. */
  refs: [name: string, object: string][]
  /** A commit whose tree is the index; null: the index was in the middle of a merge. */
  index: string | null
  /** Commits that the bundle builds on. */
  needs: string[]
}

const INDEX = 'refs/lap/index'
const KEPT = ['refs/heads', 'refs/tags', 'refs/stash']
const SOMEBODY = ['-c', 'user.name=lap', '-c', 'user.email=lap@localhost', '-c', 'commit.gpgSign=false']

/** Where a shallow history ends: those commits come from the origin, as the base does. */
const boundaries = async (git: Git): Promise<string[]> => {
  const file = path.resolve(git.workTree, await git.run('rev-parse', '--git-path', 'shallow'))
  const text = await readFile(file, 'utf8').catch(() => '')
  return text.split('\n').filter((line) => line !== '')
}

const keepIndex = async (git: Git): Promise<string | null> => {
  try {
    const tree = await git.run('write-tree')
    const commit = await git.run(...SOMEBODY, 'commit-tree', '-p', 'HEAD', '-m', 'index', tree)
    await git.run('update-ref', INDEX, commit)
    return commit
  } catch {
    // Unmerged.
    return null
  }
}

/** @returns the repository, and a bundle to come of the commits that the base commit does not bring; null when it brings all */
export const readRepository = async (
  git: Git,
  base: string,
): Promise<{ repository: Repository; bundle: AsyncIterable<Buffer> | null; done: () => Promise<void> }> => {
  const head = await git.run('symbolic-ref', '--quiet', 'HEAD').catch(() => git.run('rev-parse', 'HEAD'))
  const index = await keepIndex(git)
  const listed = await git.run('for-each-ref', '--format=%(refname) %(objectname)', ...KEPT)
  const refs = listed
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split(' ') as [string, string])
  const wanted = [...refs.map(([name]) => name), 'HEAD', ...(index === null ? [] : [INDEX])]
  const needs = [...new Set([base, ...(await boundaries(git))])]
  const known = needs.map((commit) => `^${commit}`)
  const isNew = (await git.run('rev-list', '--max-count=1', ...wanted, ...known)) !== ''
  return {
    repository: { head, refs, index, needs },
    bundle: isNew ? git.bytes('bundle', 'create', '--quiet', '-', ...wanted, ...known) : null,
    done: async () => void (await git.run('update-ref', '-d', INDEX).catch(() => undefined)),
  }
}

const restoreRefs = async (git: Git, { refs }: Repository): Promise<string[]> => {
  const failed: string[] = []
  const restore = async (name: string, object: string): Promise<void> => {
    // What `git stash list` shows is what was said when the stash was made.
    const message = await git.run('log', '-1', '--format=%s', object)
    await git.run('update-ref', '--create-reflog', '-m', message || 'restored', name, object)
  }
  for (const [name, object] of refs) await restore(name, object).catch(() => failed.push(name))
  const kept = new Set(refs.map(([name]) => name))
  const present = await git.run('for-each-ref', '--format=%(refname)', 'refs/heads')
  for (const name of present.split('\n')) if (name !== '' && !kept.has(name)) await git.run('update-ref', '-d', name)
  return failed
}

/**
 * Brings branches, HEAD and index into the state of the checkpoint; files stay as they are. The working tree is at the base commit.
 * @returns what could not be had
 */
export const restoreRepository = async (git: Git, repository: Repository, bundle: string | null): Promise<string[]> => {
  const { head, index } = repository
  if (bundle !== null) await git.run('bundle', 'unbundle', bundle)
  // No branch is the current one while they change.
  await git.run('update-ref', '--no-deref', 'HEAD', await git.run('rev-parse', 'HEAD'))
  const failed = await restoreRefs(git, repository)
  if (head.startsWith('refs/')) await git.run('symbolic-ref', 'HEAD', head)
  else await git.run('update-ref', '--no-deref', 'HEAD', head)
  await git.run('read-tree', index ?? 'HEAD')
  return failed.map((name) => `${name} cannot be restored: its commit is not in the checkpoint`)
}

/** @throws GitFailed when the origin does not have it either */
export const fetchCommit = async (git: Git, commit: string, credentials: string[]): Promise<void> => {
  const isHere = await git.run('cat-file', '-e', `${commit}^{commit}`).then(
    () => true,
    () => false,
  )
  if (isHere) return
  const quiet = ['--quiet', '--depth', '1', '--no-tags', '--no-write-fetch-head']
  await git.run(...credentials, 'fetch', ...quiet, 'origin', commit)
}

/** Puts the working tree at a commit that is here. What git does not know of in it stays. */
export const moveTo = async (git: Git, commit: string): Promise<void> => {
  if ((await git.run('rev-parse', 'HEAD')) === commit) await git.run('read-tree', 'HEAD')
  else await git.run('checkout', '--quiet', '--force', '--detach', commit)
}
