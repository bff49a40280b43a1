import { writeFileSync } from 'node:fs'
import { AppError } from '../domain/errors.ts'
import { ALLOW_ALL } from '../domain/permission.ts'
import type { BindReply, BindRequest } from '../domain/supervisor-protocol.ts'
import type { Harness, SessionSettings } from './harness.ts'
import type { Lifecycle } from './lifecycle.ts'
import type { Loopback } from './loopback.ts'
import type { McpRelay } from './mcp-relay.ts'
import { envFile, writeFiles } from './workspace.ts'

/** A refusal whose code says which one it is. */
export const refused = (code: string, message: string): AppError =>
  new AppError('conflict', message, { cause: { code } })

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
  onBound: (request: BindRequest, conversation: string) => void
}

/** Gives the sandbox to a session, once. What is repeated with the same epoch gets the same answer; after a failure it may be tried again. */
export type Binding = {
  epoch: () => number | null
  bind: (request: BindRequest) => Promise<BindReply>
}

export const createBinding = (deps: BindingDeps): Binding => {
  let current: { epoch: number; reply: Promise<BindReply> } | null = null

  const settingsOf = async ({ prompt, mcp = [], permissions = ALLOW_ALL }: BindRequest): Promise<SessionSettings> => ({
    system: prompt,
    mcp: await deps.mcpRelay.through(mcp),
    permissions,
  })

  const take = async (request: BindRequest): Promise<BindReply> => {
    writeFileSync(deps.bashEnv, envFile(request.env), { mode: 0o600 })
    if (request.files.length > 0) await writeFiles(deps.workspace, request.files)
    const id = deps.spare() ?? (await deps.harness.open())
    deps.loopback.connect(request.gateway, request.model)
    await deps.harness.bind(id, await settingsOf(request))
    deps.onBound(request, id)
    deps.lifecycle.enter({ state: 'bound' })
    return { epoch: request.epoch, harness_session_id: id }
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
