import { randomBytes } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { loadConfig } from '../../config/config.ts'
import { readEnv } from '../../config/env.ts'
import { freePort, isFree } from './ports.ts'

/** What `npm start` was given, and what it has to bring itself. */
export type DevSettings = {
  /** Everything that was given; an empty value counts as not given. */
  given: Record<string, string>
  /** Absolute. */
  dataDir: string
  host: string
  port: number
  secrets: Secrets
}

/** Made once and kept, so that what is sealed in the database can be opened by the next start. */
type Secrets = { master_key: string; encryption_key: string; gateway_key: string; postgres_password: string }

export type Ports = { metrics: number; workerMetrics: number; temporal: number; temporalUi: number; gateway: number }

const writePrivate = async (file: string, content: object): Promise<void> => {
  await writeFile(`${file}.new`, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600 })
  await rename(`${file}.new`, file)
}

const readOr = async <T extends object>(file: string, otherwise: T): Promise<T> => {
  try {
    return { ...otherwise, ...(JSON.parse(await readFile(file, 'utf8')) as Partial<T>) }
  } catch (error) {
    if (Error.isError(error) && 'code' in error && error.code === 'ENOENT') return otherwise
    throw new Error(`${file} cannot be read: ${Error.isError(error) ? error.message : String(error)}`, { cause: error })
  }
}

const secretsIn = async (dataDir: string): Promise<Secrets> => {
  const file = path.join(dataDir, 'secrets.json')
  const secrets = await readOr<Secrets>(file, {
    master_key: `lap-${randomBytes(12).toString('hex')}`,
    encryption_key: randomBytes(32).toString('base64'),
    gateway_key: `sk-demo-${randomBytes(12).toString('hex')}`,
    postgres_password: randomBytes(16).toString('hex'),
  })
  await writePrivate(file, secrets)
  return secrets
}

/** Settings that `npm start` brings itself, as right as they will be: enough to check what was given before anything is started. */
const STAND_INS = {
  DATABASE_URL: 'postgresql://lap@127.0.0.1:5432/lap',
  MASTER_KEY: 'lap-stand-in',
  SANDBOX_DRIVER: 'local',
}
/** On this machine's loopback and disk, where pods reach neither. */
const DEMO_GATEWAY = { LITELLM_API_BASE: 'http://127.0.0.1', LITELLM_API_KEY: 'sk-demo' }
const DEMO_REPOSITORY = { PREINSTALLED_GITHUB_REPO: 'file:///demo' }

export const usesCluster = ({ given }: Pick<DevSettings, 'given'>): boolean => given['SANDBOX_DRIVER'] === 'kubernetes'

/** @throws ConfigError with every wrong setting */
export const readSettings = async (root: string): Promise<DevSettings> => {
  const given = Object.fromEntries(
    Object.entries(readEnv(root)).filter(
      (entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== '',
    ),
  )
  const demo = {
    ...(given['LITELLM_API_BASE'] === undefined ? DEMO_GATEWAY : {}),
    ...DEMO_REPOSITORY,
  }
  const encryption = { ENCRYPTION_KEY: randomBytes(32).toString('base64') }
  const config = loadConfig({ ...STAND_INS, ...encryption, ...(usesCluster({ given }) ? {} : demo), ...given })
  await mkdir(config.dataDir, { recursive: true })
  return {
    given,
    dataDir: config.dataDir,
    host: config.host,
    port: config.port === 0 ? await freePort() : config.port,
    secrets: await secretsIn(config.dataDir),
  }
}

/**
 * Whether the API can listen where it is told to. Asked before anything is started.
 * @throws Error that names the remedy
 */
export const assertPortIsFree = async (settings: DevSettings): Promise<void> => {
  if (await isFree(settings.port, settings.host)) return
  const next = settings.port + 1
  throw new Error(
    `Port ${settings.port} of ${settings.host} is in use by another program. Take another one: PORT=${next} npm start`,
  )
}

/** Ports of the parts: as given, else as last time, else the customary one, else any that is free. */
export const choosePorts = async (settings: DevSettings): Promise<Ports> => {
  const file = path.join(settings.dataDir, 'ports.json')
  const customary: Ports = { metrics: 9090, workerMetrics: 9091, temporal: 7233, temporalUi: 8233, gateway: 4100 }
  const wanted = await readOr<Ports>(file, customary)
  const taken = new Set([settings.port])
  const choose = async (port: number, given?: string): Promise<number> => {
    let chosen = Number(given ?? port)
    if (given === undefined || chosen === 0)
      while (taken.has(chosen) || chosen === 0 || !(await isFree(chosen))) chosen = await freePort()
    taken.add(chosen)
    return chosen
  }
  const ports: Ports = {
    metrics: await choose(wanted.metrics, settings.given['METRICS_PORT']),
    workerMetrics: await choose(wanted.workerMetrics, settings.given['WORKER_METRICS_PORT']),
    temporal: await choose(wanted.temporal),
    temporalUi: await choose(wanted.temporalUi),
    gateway: await choose(wanted.gateway),
  }
  await writePrivate(file, ports)
  return ports
}
