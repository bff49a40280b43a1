import { afterAll, beforeAll } from '@jest/globals'
import type { SandboxRow } from '../../db/entities/sandbox.ts'
import { type TestApi, startTestApi } from '../api.ts'
import { type ClientOptions, type TerminalClient, openTerminal } from './client.ts'

/** A session whose harness is a shell, ready. */
export type TerminalSession = {
  id: string
  agentId: string
  sandbox: SandboxRow
  /** @returns path and query with a ticket in it */
  ticket(): Promise<string>
  /** With a ticket of its own. @param url of another API process */
  open(options?: ClientOptions, url?: string): Promise<TerminalClient>
}

export const webSocketUrl = (url: string, path: string): string => `${url.replace(/^http/, 'ws')}${path}`

export const buildTerminalSession = async (api: TestApi): Promise<TerminalSession> => {
  const agent = await api.call<{ id: string }>('POST', '/agents', { body: { model: 'm', harness_id: 'shell' } })
  const sandbox = await api.warmSandbox(agent.body.id)
  const session = await api.call<{ id: string; status: string }>('POST', `/agents/${agent.body.id}/session`)
  if (session.body.status !== 'ready') throw new Error(`the session is ${JSON.stringify(session.body)}`)
  const { id } = session.body
  const ticket = async (): Promise<string> =>
    (await api.call<{ url: string }>('POST', `/sessions/${id}/tty-ticket`)).body.url
  return {
    id,
    agentId: agent.body.id,
    sandbox,
    ticket,
    open: async (options = {}, url = api.url) => openTerminal(webSocketUrl(url, await ticket()), options),
  }
}

/**
 * An API for the tests of a file, and a session with a terminal in it.
 * @param prepare gives them to the tests
 */
export const withTerminal = (prepare: (world: { api: TestApi; session: TerminalSession }) => void): void => {
  let api: TestApi | undefined
  beforeAll(async () => {
    api = await startTestApi()
    prepare({ api, session: await buildTerminalSession(api) })
  })
  afterAll(async () => api?.[Symbol.asyncDispose]())
}
