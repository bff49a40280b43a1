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
  current(): Promise<{ headers: Record<string, string>; tls: TlsOptions }>
}

export type TlsOptions = {
  ca?: string | Buffer
  cert?: string | Buffer
  key?: string | Buffer
  servername?: string
  rejectUnauthorized?: boolean
}

/** Tokens of service accounts change once an hour, exec plug-ins may be slow: neither is asked for every request. */
const freshMs = 30_000

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

/**
 * Reads `KUBECONFIG`, `~/.kube/config`, or the service account of the pod that this process runs in, in this order.
 * @param file path of a kubeconfig, instead of all that
 * @throws AppError `unavailable` when there is none
 */
export const loadCredentials = (file?: string): Credentials => {
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

  let known: { at: number; value: Awaited<ReturnType<Credentials['current']>> } | null = null
  return {
    server: cluster.server.replace(/\/+$/, ''),
    namespace: config.getContextObject(config.getCurrentContext())?.namespace ?? null,
    async current() {
      if (known !== null && performance.now() - known.at < freshMs) return known.value
      const options = await requestOptionsOf(config)
      known = { at: performance.now(), value: { headers: headersOf(options), tls: tlsOf(options) } }
      return known.value
    },
  }
}
