import { writeFileSync } from 'node:fs'
import { errorText } from '../domain/errors.ts'
import { ALLOW_ALL } from '../domain/permission.ts'
import type { BindReply, BindRequest } from '../domain/supervisor-protocol.ts'
import type { Restored, Restores } from './checkpoint/restores.ts'
import type { Harness, SessionSettings } from './harness.ts'
import type { Lifecycle } from './lifecycle.ts'
import type { Log } from './log.ts'
import type { Loopback } from './loopback.ts'
import type { McpRelay } from './mcp-relay.ts'
import { refused } from './refused.ts'
import { envFile, writeFiles } from './workspace.ts'

export type BindingDeps = {
  workspace: string
  /** Read by every shell that the harness starts. */
  bashEnv: string
  harness: Harness
  loopback: Loopback
  mcpRelay: McpRelay
  lifecycle: Lifecycle
  /** The conversation opened ahead, if there is one. */
  spare: () => string | null
  restores: Pick<Restores, 'forBind'>
  onBound: (request: BindRequest, conversation: string, restored: Restored | null) => void
  log: Pick<Log, 'write'>
}

/** Gives the sandbox to a session, once. What is repeated with the same epoch gets the same answer; after a failure it may be tried again. */
export type Binding = {
  epoch: () => number | null
  bind: (request: BindRequest) => Promise<BindReply>
}

export const createBinding = (deps: BindingDeps): Binding => {
  let current: { epoch: number; reply: Promise<BindReply> } | null = null

  const settingsOf = async ({
    prompt,
    mcp = [],
    permissions = ALLOW_ALL,
    moved = false,
  }: BindRequest): Promise<SessionSettings> => ({
    system: prompt,
    mcp: await deps.mcpRelay.through(mcp),
    permissions,
    moved,
  })

  /** The conversation of the checkpoint, or the one that was opened ahead. */
  const conversationFor = async (restored: Restored | null): Promise<string> => {
    const spare = deps.spare()
    const adopted = restored?.conversation ?? null
    if (adopted === null) return spare ?? deps.harness.open()
    // Nobody waits for that.
    if (spare !== null)
      deps.harness.close(spare).catch((error: unknown) => deps.log.write(`the spare conversation: ${errorText(error)}`))
    return adopted
  }

  const take = async (request: BindRequest): Promise<BindReply> => {
    const restored = await deps.restores.forBind(request.checkpoint?.id)
    writeFileSync(deps.bashEnv, envFile(request.env), { mode: 0o600 })
    // What the agent has made of a file since is in the checkpoint.
    const which = restored === null ? 'all' : 'missing'
    if (request.files.length > 0) await writeFiles(deps.workspace, request.files, which)
    const id = await conversationFor(restored)
    deps.loopback.connect(request.gateway, request.model)
    await deps.harness.bind(id, await settingsOf(request))
    deps.onBound(request, id, restored)
    deps.lifecycle.enter({ state: 'bound' })
    const reply = { epoch: request.epoch, harness_session_id: id }
    if (restored === null) return reply
    const { conversation, files, problems } = restored.reply
    return { ...reply, restored: { conversation, files, problems } }
  }

  return {
    epoch: () => current?.epoch ?? null,
    bind(request) {
      if (current !== null && current.epoch !== request.epoch)
        throw refused('other_epoch', `the sandbox is bound with epoch ${current.epoch}`)
      if (current === null) {
        const state = deps.lifecycle.read().state
        if (state !== 'booted' && state !== 'warm') throw refused('not_ready', `the sandbox is ${state}`)
        const attempt = { epoch: request.epoch, reply: take(request) }
        current = attempt
        attempt.reply.catch(() => {
          if (current === attempt) current = null
        })
      }
      return current.reply
    },
  }
}
