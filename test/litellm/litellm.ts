import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { endProcess, isRunning, type ProcessRecord, recordOf } from '../../tools/dev/process.ts'
import { type ScriptedModel, startScriptedModel } from '../scripted-model.ts'
import { watchOver } from '../servers.ts'
import { type Proxy, startProxy, touch } from './proxy.ts'

/** A real LiteLLM proxy in front of a scripted model. */
export type LiteLlm = AsyncDisposable & {
  /** Without `/v1`. */
  url: string
  /** Bearer token of the proxy. */
  key: string
  /** The model behind it; its `requests` are those of this caller alone. */
  upstream: ScriptedModel
  /** Where it looks for its MCP server. */
  mcpPort: number
  /** The proxy's process. */
  record: ProcessRecord
}

/** The proxy of this process, as later test files of it find it. */
type Shared = Proxy & { owner: ProcessRecord }

const sharedDir = (): string => path.join(os.tmpdir(), `lap-litellm-${process.pid}`)
const sharedFile = (): string => path.join(sharedDir(), 'shared.json')

const ownRecord = (): ProcessRecord => {
  const own = recordOf(process.pid)
  if (own === null) throw new Error('This process does not find itself in /proc')
  return own
}

const findShared = async (): Promise<Proxy | null> => {
  const text = await readFile(sharedFile(), 'utf8').catch(() => null)
  if (text === null) return null
  const { owner, ...proxy } = JSON.parse(text) as Shared
  return owner.started === ownRecord().started && isRunning(proxy.record) ? proxy : null
}

const startShared = async (): Promise<Proxy> => {
  const dir = sharedDir()
  await rm(dir, { recursive: true, force: true })
  await mkdir(dir, { mode: 0o700 })
  const watched = await watchOver([], dir)
  const proxy = await startProxy(dir, watched)
  const draft = path.join(dir, 'shared.json.new')
  await writeFile(draft, JSON.stringify({ ...proxy, owner: ownRecord() } satisfies Shared), { mode: 0o600 })
  await rename(draft, sharedFile())
  return proxy
}

/** With a model behind it, and through every route once. */
const attach = async ({ url, key, upstream: place, record }: Proxy, end: () => Promise<void>): Promise<LiteLlm> => {
  const upstream = await startScriptedModel(place.key, '127.0.0.1', place.port).catch((error: unknown) => {
    if (!(Error.isError(error) && 'code' in error && error.code === 'EADDRINUSE')) throw error
    const remedy = 'dispose of the other one before, or ask for one of your own: startLiteLlm({ own: true })'
    throw new Error(`The LiteLLM proxy of this process is in use: ${remedy}`, { cause: error })
  })
  const dispose = async (): Promise<void> => {
    await upstream.close()
    await end()
  }
  try {
    await touch({ url, key })
  } catch (error) {
    await dispose()
    throw error
  }
  upstream.requests.length = 0
  return { url, key, upstream, mcpPort: place.mcpPort, record, [Symbol.asyncDispose]: dispose }
}

const startOwn = async (): Promise<LiteLlm> => {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'lap-litellm-own-'))
  const watched = await watchOver([], dir)
  const proxy = await startProxy(dir, watched)
  return attach(proxy, async () => {
    await endProcess(proxy.record, 'SIGKILL', 0)
    await rm(dir, { recursive: true, force: true })
  })
}

/**
 * A start takes 10–50 s and 400 MB, so there is one proxy a process: Jest runs the test files of a worker one after the other, and the second finds what the first
 * has started. (One for a whole run would need a model outside of the tests, whose requests they could only see through another protocol; a global
 * set-up would start it for runs that need none.) The model behind it is the caller's own and goes when it is disposed of; the proxy stays until this
 * process ends, however it ends.
 * @param own a proxy that nobody else uses, for those who end it or need two
 */
export const startLiteLlm = async ({ own = false }: { own?: boolean } = {}): Promise<LiteLlm> =>
  own ? startOwn() : attach((await findShared()) ?? (await startShared()), () => Promise.resolve())
