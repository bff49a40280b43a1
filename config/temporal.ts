import { readFileSync } from 'node:fs'
import type { Env } from './env.ts'
import { type Given, pairProblems, type SettingProblem } from './problems.ts'

export type TemporalConfig = {
  address: string
  namespace: string
  apiKey: string | null
  /** null: plain connection. The keys are those of Temporal's `TLSConfig`. */
  tls: {
    serverNameOverride?: string
    serverRootCACertificate?: Buffer
    clientCertPair?: { crt: Buffer; key: Buffer }
  } | null
  uiUrl: string | null
  /** File with the bundled workflow code, or null. */
  workflowBundle: string | null
}

export const temporalProblems = (given: Given): SettingProblem[] => {
  const problems = pairProblems(given, ['TEMPORAL_TLS_CLIENT_CERT_PATH', 'TEMPORAL_TLS_CLIENT_KEY_PATH'])
  const tls = Object.keys(given).find((name) => name.startsWith('TEMPORAL_TLS_'))
  if (given['TEMPORAL_TLS'] === 'false' && tls !== undefined)
    problems.push({ key: 'TEMPORAL_TLS', reason: `must not be false when ${tls} is set` })
  return problems
}

export const temporalOf = (env: Env): TemporalConfig => {
  const { TEMPORAL_TLS_CLIENT_CERT_PATH: cert, TEMPORAL_TLS_CLIENT_KEY_PATH: key } = env
  const { TEMPORAL_TLS_SERVER_CA_CERT_PATH: ca, TEMPORAL_TLS_SERVER_NAME: name } = env
  const anyTls = [cert, key, ca, name].some((value) => value !== undefined)
  const on = env.TEMPORAL_TLS ?? (anyTls || env.TEMPORAL_API_KEY !== undefined)
  return {
    address: env.TEMPORAL_ADDRESS,
    namespace: env.TEMPORAL_NAMESPACE,
    apiKey: env.TEMPORAL_API_KEY ?? null,
    tls: !on
      ? null
      : {
          ...(name === undefined ? {} : { serverNameOverride: name }),
          ...(ca === undefined ? {} : { serverRootCACertificate: readFileSync(ca) }),
          ...(cert === undefined || key === undefined
            ? {}
            : { clientCertPair: { crt: readFileSync(cert), key: readFileSync(key) } }),
        },
    uiUrl: env.TEMPORAL_UI_URL ?? null,
    workflowBundle: env.WORKFLOW_BUNDLE_PATH ?? null,
  }
}
