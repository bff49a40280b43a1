import type { RequestOptions } from 'node:https'
import { KubeConfig } from '@kubernetes/client-node'
import { AppError, errorText } from '../domain/errors.ts'

/** Where the API server is, and as whom to talk to it. */
export type Credentials = {
  /** Without a slash at its end. */
  server: string
  /** Namespace of the context, if it names one. */
  namespace: string | null
  /** Headers and TLS options for the next request. Tokens and certificates may rotate, so they are asked for again and again. */
  current(): Promise<Login>
  /**
   * The API server does not accept these. Unless it was done a moment ago, the kubeconfig is read again: whoever renews a token writes it there.
   * @returns those of now; the same ones: there are no others
   */
  renew(refused: Login): Promise<Login>
}

export type Login = { headers: Record<string, string>; tls: TlsOptions }

export type TlsOptions = {
  ca?: string | Buffer
  cert?: string | Buffer
  key?: string | Buffer
  servername?: string
  rejectUnauthorized?: boolean
}

/** Tokens of service accounts change once an hour, exec plug-ins may be slow: neither is asked for every request. */
const freshMs = 30_000
/** Many requests are refused at once, and go on being refused while nobody renews anything. */
const renewAgainMs = 5_000

const tlsOf = (options: RequestOptions): TlsOptions => {
  const { ca, cert, key, servername, rejectUnauthorized } = options
  const text = (value: unknown): string | Buffer | undefined =>
    typeof value === 'string' || Buffer.isBuffer(value) ? value : undefined
  const all = { ca: text(ca), cert: text(cert), key: text(key), servername, rejectUnauthorized }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as TlsOptions
}

const headersOf = (options: RequestOptions): Record<string, string> => {
  const headers: Record<string, string> = {}
  for (const [name, value] of Object.entries(options.headers ?? {}))
    if (value !== undefined) headers[name.toLowerCase()] = String(value)
  if (typeof options.auth === 'string')
    headers['authorization'] = `Basic ${Buffer.from(options.auth).toString('base64')}`
  return headers
}

/** The rest of what a parser of YAML says quotes the lines around, and with them tokens and keys. */
const firstLine = (text: string): string => text.split('\n', 1)[0] ?? ''

/** @throws Error that quotes nothing of what a plug-in printed, which may be a token */
const requestOptionsOf = async (config: KubeConfig): Promise<RequestOptions> => {
  const options: RequestOptions = {}
  try {
    await config.applyToHTTPSOptions(options)
  } catch (error) {
    if (!Error.isError(error) || error.name !== 'SyntaxError') throw error
    throw new AppError('unavailable', 'what the credential plug-in of the kubeconfig printed is not JSON')
  }
  return options
}

const readConfig = (file: string | undefined): { config: KubeConfig; server: string } => {
  const config = new KubeConfig()
  try {
    if (file === undefined) config.loadFromDefault()
    else config.loadFromFile(file)
  } catch (error) {
    throw new AppError('unavailable', `the kubeconfig cannot be read: ${firstLine(errorText(error))}`)
  }
  const cluster = config.getCurrentCluster()
  if (cluster === null)
    throw new AppError('unavailable', 'the kubeconfig has no current context, or one without a cluster')
  return { config, server: cluster.server.replace(/\/+$/, '') }
}

/**
 * Reads `KUBECONFIG`, `~/.kube/config`, or the service account of the pod that this process runs in, in this order.
 * @param file path of a kubeconfig, instead of all that
 * @throws AppError `unavailable` when there is none
 */
export const loadCredentials = (file?: string): Credentials => {
  const first = readConfig(file)
  let { config } = first
  let known: { at: number; login: Login } | null = null
  let renewedAt = Number.NEGATIVE_INFINITY

  const current = async (): Promise<Login> => {
    if (known !== null && performance.now() - known.at < freshMs) return known.login
    const options = await requestOptionsOf(config)
    const login = { headers: headersOf(options), tls: tlsOf(options) }
    known = { at: performance.now(), login }
    return login
  }
  const readAgain = (): void => {
    renewedAt = performance.now()
    try {
      const again = readConfig(file)
      // What is meant for another server is not shown to this one.
      if (again.server === first.server) config = again.config
    } catch {
      // It is being written.
    }
    known = null
  }
  return {
    server: first.server,
    namespace: config.getContextObject(config.getCurrentContext())?.namespace ?? null,
    current,
    renew(refused) {
      if (known?.login === refused && performance.now() - renewedAt > renewAgainMs) readAgain()
      return current()
    },
  }
}
