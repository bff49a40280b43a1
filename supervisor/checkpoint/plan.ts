import { wrong } from './unpack.ts'
import { isInside } from './paths.ts'
import type { Repository } from './repository.ts'

/**
 * What is in an archive:
 *
 *   checkpoint.json       Plan, the first of it
 *   conversation/…        what the harness keeps of it
 *   git/bundle            commits that the base commit does not bring
 *   workspace/…           files and links that are not as in the base commit
 */
export const PLAN = 'checkpoint.json'
export const CONVERSATION = 'conversation'
export const BUNDLE = 'git/bundle'
export const WORKSPACE = 'workspace'

export type Plan = {
  version: 1
  harness: { id: string }
  conversation: string
  /** Where the workspace was. */
  workspace: string
  base_commit: string | null
  /** Files of the base commit that are gone. */
  deleted: string[]
  /** null without a repository, or where it could not be kept. */
  git: Repository | null
}

const OBJECT = /^[0-9a-f]{40,64}$/
const isObject = (value: unknown): value is string => typeof value === 'string' && OBJECT.test(value)
/** git itself checks the rest of a name. */
const isRef = (value: unknown): value is string => typeof value === 'string' && /^refs\/(heads|tags|stash)/.test(value)
const isText = (value: unknown): value is string => typeof value === 'string' && value !== ''
const isList = <T>(value: unknown, each: (entry: unknown) => entry is T): value is T[] =>
  Array.isArray(value) && value.every(each)

type Fields = Record<string, unknown>

const isPair = (value: unknown): value is [string, string] =>
  Array.isArray(value) && value.length === 2 && isRef(value[0]) && isObject(value[1])

const isRepository = (value: unknown): value is Repository => {
  if (typeof value !== 'object' || value === null) return false
  const { head, refs, index, needs } = value as Fields
  return (
    (isRef(head) || isObject(head)) &&
    isList(refs, isPair) &&
    (index === null || isObject(index)) &&
    isList(needs, isObject)
  )
}

const isPath = (value: unknown): value is string => isText(value) && isInside(value)

/** @throws AppError `invalid` */
export const asPlan = (text: string): Plan => {
  let plan: Fields
  try {
    plan = JSON.parse(text) as Fields
  } catch {
    throw wrong(`${PLAN} is no JSON`)
  }
  const { version, harness, conversation, workspace, base_commit, deleted, git } = plan
  if (version !== 1) throw wrong(`its version is ${String(version)}, known is 1`)
  const isWhole =
    isText((harness as Fields | undefined)?.['id']) &&
    isText(conversation) &&
    /^[\w.-]+$/.test(conversation) &&
    isText(workspace) &&
    (base_commit === null || isObject(base_commit)) &&
    isList(deleted, isPath) &&
    (git === null || isRepository(git))
  if (!isWhole) throw wrong(`${PLAN} is not what a supervisor writes`)
  return plan as unknown as Plan
}
