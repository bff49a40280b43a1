import { createWriteStream } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { AppError, errorText } from '../../domain/errors.ts'
import { checkpointMaxBytes, checkpointRestoreTimeoutMs } from '../../domain/limits.ts'
import type { RestoreReply } from '../../domain/supervisor-protocol.ts'
import { refused } from '../refused.ts'
import type { Harness } from '../harness.ts'
import type { Checked } from './restore.ts'

/** What a bind finds. */
export type Restored = {
  reply: RestoreReply
  /** That the harness has taken up; null: it cannot. */
  conversation: string | null
  /** Where the workspace was in the sandbox that it comes from. */
  workspace: string
}

/**
 * The checkpoint that is put into a sandbox before it is bound.
 *
 *   received ──► looked through ──► applied ──► taken up by the harness
 *
 * Only one is in place. Another one begins with a clone that is made anew; the same one, after whatever has ended it midway, goes over what is there.
 */
export type Restores = {
  /** @throws AppError `conflict`, `too_large`, `invalid` */
  restore(id: string, body: AsyncIterable<Buffer>): Promise<RestoreReply>
  /** Nothing of it changes any more. @throws AppError `conflict` when that is not the one in place */
  forBind(id: string | undefined): Promise<Restored | null>
}

export type RestoresDeps = {
  dir: string
  workspace: string
  env: Record<string, string>
  credentials: string[]
  harnessId: string
  harness: Pick<Harness, 'adopt' | 'close'>
  base: () => string | null
  setBase: (base: string | null) => void
  /** Clones and sets up in a workspace that was emptied. */
  remake: () => Promise<void>
  /** @throws AppError `conflict` unless one may be put in place */
  check: () => void
  log: (line: string) => void
}

/** Writes a body to a file. @throws AppError `too_large`, after it has been read to its end: nobody sees an answer before that */
const receive = async (body: AsyncIterable<Buffer>, file: string): Promise<void> => {
  let size = 0
  async function* kept(): AsyncGenerator<Buffer> {
    for await (const bytes of body) if ((size += bytes.length) <= checkpointMaxBytes) yield bytes
  }
  await pipeline(kept(), createWriteStream(file, { flags: 'wx', mode: 0o600 }))
  if (size > checkpointMaxBytes)
    throw new AppError('too_large', `a checkpoint may have at most ${checkpointMaxBytes} bytes`)
}

const createSteps = (deps: RestoresDeps) => {
  const adopt = async ({ plan, hasConversation }: Checked, folder: string): Promise<string | null> => {
    if (!hasConversation) return null
    if (plan.harness.id !== deps.harnessId) {
      deps.log(`a conversation of ${plan.harness.id} cannot be taken up by ${deps.harnessId}`)
      return null
    }
    try {
      return (await deps.harness.adopt(plan.conversation, folder)) ? plan.conversation : null
    } catch (error) {
      deps.log(`the conversation ${plan.conversation} cannot be taken up: ${errorText(error)}`)
      return null
    }
  }
  return {
    async apply(checked: Checked, folder: string): Promise<{ files: number; problems: RestoreReply['problems'] }> {
      const { applyArchive } = await import('./restore.ts')
      const signal = AbortSignal.timeout(checkpointRestoreTimeoutMs)
      const { workspace, env, credentials } = deps
      const { base, ...applied } = await applyArchive(
        { workspace, env, credentials, folder, signal, base: deps.base() },
        checked,
      )
      deps.setBase(base)
      return applied
    },
    adopt,
    forget: (conversation: string): Promise<void> =>
      deps.harness.close(conversation).catch((error: unknown) => deps.log(`close: ${errorText(error)}`)),
  }
}

export const createRestores = (deps: RestoresDeps): Restores => {
  const steps = createSteps(deps)
  let current: Restored | null = null
  /** Whose files are in the workspace, perhaps not all of them. */
  let dirtyBy: string | null = null
  let before: Promise<unknown> = Promise.resolve()
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const mine = before.then(work)
    before = mine.catch(() => undefined)
    return mine
  }

  const clean = async (): Promise<void> => {
    if (current?.conversation != null) await steps.forget(current.conversation)
    current = null
    await deps.remake()
    dirtyBy = null
  }
  const put = async (id: string, checked: Checked, folder: string): Promise<RestoreReply> => {
    if (current?.reply.checkpoint_id === id) return current.reply
    deps.check()
    if (dirtyBy !== null && dirtyBy !== id) await clean()
    dirtyBy = id
    const { files, problems } = await steps.apply(checked, folder)
    const conversation = await steps.adopt(checked, path.join(folder, 'conversation'))
    const reply = { checkpoint_id: id, conversation: conversation !== null, files, problems }
    current = { reply, conversation, workspace: checked.plan.workspace }
    return reply
  }

  return {
    async restore(id, body) {
      if (current?.reply.checkpoint_id === id) {
        for await (const _ of body);
        return current.reply
      }
      deps.check()
      await mkdir(deps.dir, { recursive: true })
      const folder = await mkdtemp(path.join(deps.dir, 'restore-'))
      try {
        const file = path.join(folder, 'archive')
        await receive(body, file)
        const { checkArchive } = await import('./restore.ts')
        const checked = await checkArchive(file, deps.base() !== null)
        return await inTurn(() => put(id, checked, folder))
      } finally {
        await rm(folder, { recursive: true, force: true })
      }
    },
    forBind: (id) =>
      inTurn(async () => {
        if (id !== undefined && current?.reply.checkpoint_id !== id)
          throw refused('no_checkpoint', `the checkpoint ${id} was not restored in this sandbox`)
        // Without it the session would find half of its files.
        if (dirtyBy !== null && current === null) await clean()
        return id === undefined ? null : current
      }),
  }
}
