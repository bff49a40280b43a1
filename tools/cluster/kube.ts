import { readFile } from 'node:fs/promises'
import { Agent, request } from 'undici'
import { parse } from 'yaml'

/** How a Kubernetes API server is reached, by bearer token or client certificate. */
export type Access = {
  server: string
  ca?: string
  token?: string
  clientCertificate?: string
  clientKey?: string
}

/** An answer of the API server that is not 2xx. */
class KubeError extends Error {
  override name = 'KubeError'
  readonly status: number
  readonly reason: string
  constructor(status: number, reason: string, message: string) {
    super(message)
    this.status = status
    this.reason = reason
  }
}

export const isStatus = (error: unknown, ...statuses: number[]): boolean =>
  error instanceof KubeError && statuses.includes(error.status)

export type WatchEvent<T> = { type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR'; object: T }

export type Kube = AsyncDisposable & {
  get<T>(path: string): Promise<T>
  text(path: string): Promise<string>
  create<T>(path: string, object: object): Promise<T>
  /** A JSON merge patch (RFC 7386). */
  patch<T>(path: string, changes: object): Promise<T>
  remove(path: string, options?: object): Promise<void>
  /** Ends when the server ends it, or with the signal. */
  watch<T>(path: string, signal: AbortSignal): AsyncGenerator<WatchEvent<T>>
}

const REQUEST_TIMEOUT_MS = 30_000

const errorOf = (status: number, body: string): KubeError => {
  try {
    const { reason, message } = JSON.parse(body) as { reason?: string; message?: string }
    return new KubeError(status, reason ?? 'Unknown', message ?? body)
  } catch {
    return new KubeError(status, 'Unknown', body.slice(0, 2_000))
  }
}

async function* linesOf(chunks: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of chunks) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n')
    rest = lines.pop() ?? ''
    yield* lines.filter((line) => line !== '')
  }
}

/** The little of a client that tools and stand-ins need: paths and JSON. */
export const connectKube = (access: Access): Kube => {
  const dispatcher = new Agent({
    connect: { ca: access.ca, cert: access.clientCertificate, key: access.clientKey },
    headersTimeout: REQUEST_TIMEOUT_MS,
    bodyTimeout: 0,
  })
  const authorization = access.token === undefined ? {} : { authorization: `Bearer ${access.token}` }
  const send = async (method: 'GET' | 'POST' | 'PATCH' | 'DELETE', path: string, body?: object): Promise<string> => {
    const contentType = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json'
    const answer = await request(`${access.server}${path}`, {
      method,
      dispatcher,
      headers: { ...authorization, accept: 'application/json', 'content-type': contentType },
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    })
    const text = await answer.body.text()
    if (answer.statusCode >= 300) throw errorOf(answer.statusCode, text)
    return text
  }
  async function* watch<T>(path: string, signal: AbortSignal): AsyncGenerator<WatchEvent<T>> {
    const answer = await request(`${access.server}${path}`, { dispatcher, headers: authorization, signal })
    if (answer.statusCode !== 200) throw errorOf(answer.statusCode, await answer.body.text())
    for await (const line of linesOf(answer.body)) yield JSON.parse(line) as WatchEvent<T>
  }
  return {
    get: async <T>(path: string) => JSON.parse(await send('GET', path)) as T,
    text: (path) => send('GET', path),
    create: async <T>(path: string, object: object) => JSON.parse(await send('POST', path, object)) as T,
    patch: async <T>(path: string, changes: object) => JSON.parse(await send('PATCH', path, changes)) as T,
    remove: async (path, options) => void (await send('DELETE', path, options)),
    watch,
    [Symbol.asyncDispose]: () => dispatcher.destroy(),
  }
}

type Kubeconfig = {
  'current-context': string
  contexts: { name: string; context: { cluster: string; user: string } }[]
  clusters: {
    name: string
    cluster: { server: string; 'certificate-authority-data'?: string; 'certificate-authority'?: string }
  }[]
  users: {
    name: string
    user: {
      token?: string
      'client-certificate-data'?: string
      'client-certificate'?: string
      'client-key-data'?: string
      'client-key'?: string
    }
  }[]
}

/** A kubeconfig is YAML, and JSON is YAML. */
export const kubeconfigText = ({ server, ca, token }: { server: string; ca: string; token: string }): string => {
  const config: Kubeconfig & { apiVersion: string; kind: string } = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'lap',
    contexts: [{ name: 'lap', context: { cluster: 'lap', user: 'lap' } }],
    clusters: [{ name: 'lap', cluster: { server, 'certificate-authority-data': Buffer.from(ca).toString('base64') } }],
    users: [{ name: 'lap', user: { token } }],
  }
  return `${JSON.stringify(config, null, 2)}\n`
}

const dataOr = async (data: string | undefined, file: string | undefined): Promise<string | undefined> => {
  if (data !== undefined) return Buffer.from(data, 'base64').toString()
  return file === undefined ? undefined : readFile(file, 'utf8')
}

/** The current context of a kubeconfig. @throws Error for a user that authenticates in another way than by token or certificate */
export const readAccess = async (file: string): Promise<Access> => {
  const config = parse(await readFile(file, 'utf8')) as Kubeconfig
  const context = config.contexts.find(({ name }) => name === config['current-context'])?.context
  const cluster = config.clusters.find(({ name }) => name === context?.cluster)?.cluster
  const user = config.users.find(({ name }) => name === context?.user)?.user
  if (cluster === undefined || user === undefined) throw new Error(`${file} has no complete current context`)
  const [ca, clientCertificate, clientKey] = await Promise.all([
    dataOr(cluster['certificate-authority-data'], cluster['certificate-authority']),
    dataOr(user['client-certificate-data'], user['client-certificate']),
    dataOr(user['client-key-data'], user['client-key']),
  ])
  if (user.token === undefined && (clientCertificate === undefined || clientKey === undefined))
    throw new Error(`The user of ${file} has neither a token nor a client certificate`)
  return {
    server: cluster.server,
    ...(ca === undefined ? {} : { ca }),
    ...(user.token === undefined ? {} : { token: user.token }),
    ...(clientCertificate === undefined ? {} : { clientCertificate }),
    ...(clientKey === undefined ? {} : { clientKey }),
  }
}
