import { randomBytes } from 'node:crypto'
import { open, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../../tools/dev/ports.ts'
import { endProcess, isRunning, type ProcessRecord, startProcess } from '../../tools/dev/process.ts'
import { MCP_KEY } from '../mcp-server.ts'
import { MODELS, configuration } from './config.ts'
import { liteLlmEnvironment } from './environment.ts'

/** A LiteLLM proxy that runs, and the place of the model behind it. */
export type Proxy = {
  record: ProcessRecord
  url: string
  key: string
  upstream: { port: number; mcpPort: number; key: string }
}

/** 10 s on an idle machine, 49 s were seen on a loaded one. */
const READY_TIMEOUT_MS = 180_000
const TOUCH_TIMEOUT_MS = 120_000
const POLL_MS = 100

/** Everything a process of ours inherits would be the proxy's as well, so it gets nothing but this. Nothing that it might ask of the internet gets out. */
const environment = (dir: string, keys: { proxy: string; upstream: string }): Record<string, string> => ({
  PATH: process.env['PATH'] ?? '',
  HOME: dir,
  TMPDIR: dir,
  LANG: 'C.UTF-8',
  LITELLM_MASTER_KEY: keys.proxy,
  UPSTREAM_KEY: keys.upstream,
  MCP_KEY,
  LITELLM_LOCAL_MODEL_COST_MAP: 'True',
  LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS: 'True',
  NO_DOCS: 'True',
  HTTP_PROXY: 'http://127.0.0.1:1',
  HTTPS_PROXY: 'http://127.0.0.1:1',
  NO_PROXY: '127.0.0.1,localhost',
})

const isUp = (url: string): Promise<boolean> =>
  fetch(`${url}/health/liveliness`, { signal: AbortSignal.timeout(2_000) }).then(
    async (response) => {
      await response.text()
      return response.ok
    },
    () => false,
  )

const hello = [{ role: 'user', content: 'say hello' }]

/** Every route in use, streamed and whole. */
const ROUTES: { path: string; body?: object }[] = [
  { path: '/v1/models' },
  ...[false, true].flatMap((stream) => [
    { path: '/v1/chat/completions', body: { stream, messages: hello } },
    { path: '/v1/messages', body: { stream, max_tokens: 100, messages: hello } },
    { path: '/v1/responses', body: { stream, input: 'say hello' } },
  ]),
  { path: '/v1/messages/count_tokens', body: { messages: hello } },
]

/** The first request of a route takes up to 5 s more than the later ones; none of a test shall be the first. Its upstream has to be there. */
export const touch = async ({ url, key }: Pick<Proxy, 'url' | 'key'>): Promise<void> => {
  for (const { path, body } of ROUTES) {
    const response = await fetch(`${url}${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify({ model: MODELS.priced, ...body }) }),
      signal: AbortSignal.timeout(TOUCH_TIMEOUT_MS),
    })
    const said = await response.text()
    if (!response.ok) throw new Error(`LiteLLM answers ${path} with ${response.status}: ${said.slice(0, 500)}`)
  }
}

/** Starts a proxy; resolves when it answers. @param dir a folder of its own @param onSpawn told of the process as soon as there is one */
export const startProxy = async (dir: string, onSpawn: (record: ProcessRecord) => void): Promise<Proxy> => {
  const venv = await liteLlmEnvironment((text) => void process.stderr.write(`  ${text}\n`))
  const upstream = { port: await freePort(), mcpPort: await freePort(), key: `up-${randomBytes(16).toString('hex')}` }
  const key = `sk-${randomBytes(16).toString('hex')}`
  const config = path.join(dir, 'config.yaml')
  await writeFile(config, configuration(upstream))
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  // Into a file: a pipe would have to be read by a process that has forgotten the test which started it.
  const log = path.join(dir, 'litellm.log')
  const output = await open(log, 'w')
  const args = ['--config', config, '--host', '127.0.0.1', '--port', String(port), '--telemetry', 'False']
  const { child, record } = await startProcess(
    path.join(venv, 'bin', 'python'),
    [path.join(venv, 'bin', 'litellm'), ...args],
    {
      cwd: dir,
      env: environment(dir, { proxy: key, upstream: upstream.key }),
      stdio: ['ignore', output.fd, output.fd],
      onSpawn,
    },
  )
  await output.close()
  child.unref()
  for (const end = Date.now() + READY_TIMEOUT_MS; !(await isUp(url)); await sleep(POLL_MS)) {
    if (isRunning(record) && Date.now() < end) continue
    await endProcess(record, 'SIGKILL', 0)
    throw new Error(`LiteLLM does not start:\n${(await readFile(log, 'utf8')).trim().slice(-3_000)}`)
  }
  return { record, url, key, upstream }
}
