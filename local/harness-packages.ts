import { spawn } from 'node:child_process'
import { readFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../domain/errors.ts'
import { isAlive, startTimeOf } from './processes.ts'

/**
 * The packages of a harness are some hundred MB, so they are installed when the first sandbox needs them and not before; those of the pinned lockfile, and
 * once for all processes of the machine.
 */
export type HarnessPackages = {
  /** Resolves when they are there. @param onInstalling told if that takes a while @throws Error with npm's last words */
  ensure(dir: string, onInstalling: () => void): Promise<void>
}

type Lockfile = { packages: Record<string, { version?: string; optional?: boolean; peer?: boolean }> }

const LOCK = '.installing'
const lockPollMs = 250
/** npm needs a minute or two; said again while one waits. */
const tellEveryMs = 10_000
const tailCharsMax = 2_000

const readJson = async <T>(file: string): Promise<T | null> => {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as T
  } catch {
    return null
  }
}

/** The folder whose packages a harness uses: its own, or that of another one which its `package.json` names. */
const packagesOf = async (dir: string): Promise<string> => {
  const manifest = await readJson<{ lap?: { packages?: string } }>(path.join(dir, 'package.json'))
  return path.join(dir, manifest?.lap?.packages ?? '.')
}

/** Compares the lockfile with the one that npm leaves as the last step of an install. A folder without one needs nothing. */
const isInstalled = async (dir: string): Promise<boolean> => {
  const wanted = await readJson<Lockfile>(path.join(dir, 'package-lock.json'))
  if (wanted === null) return true
  const present = await readJson<Lockfile>(path.join(dir, 'node_modules/.package-lock.json'))
  if (present === null) return false
  return Object.entries(wanted.packages).every(
    ([name, { version, optional, peer }]) =>
      name === '' || optional === true || peer === true || present.packages[name]?.version === version,
  )
}

/**
 * What npm and the install scripts of the packages get of the platform's environment, which has the keys of the platform in it: programs and home, how the internet is
 * reached from here, and npm's own settings.
 */
const ENV =
  /^(PATH|HOME|USER|LANG|LC_ALL|TMPDIR|TEMP|TMP|https?_proxy|no_proxy|all_proxy|npm_config_.*|node_extra_ca_certs|ssl_cert_(file|dir))$/i

const environmentOf = (env: NodeJS.ProcessEnv): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(env).filter(([name]) => ENV.test(name)))

const npmCi = (dir: string, env: NodeJS.ProcessEnv): Promise<void> =>
  new Promise((resolve, reject) => {
    const child = spawn('npm', ['ci', '--omit=dev', '--no-audit', '--no-fund'], {
      cwd: dir,
      env: environmentOf(env),
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let tail = ''
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (text: Buffer) => (tail = `${tail}${text.toString()}`.slice(-tailCharsMax)))
    child.once('error', reject)
    child.once('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`npm ci in ${dir} ended with ${code}:\n${tail.trim()}`)),
    )
  })

/** The right to install goes to who makes the file; that of a dead process counts for nothing. @returns whether it is ours now */
const tryLock = async (file: string): Promise<boolean> => {
  const own = { pid: process.pid, startTime: startTimeOf(process.pid) ?? '' }
  try {
    await writeFile(file, JSON.stringify(own), { flag: 'wx' })
    return true
  } catch (error) {
    if (!(Error.isError(error) && 'code' in error && error.code === 'EEXIST'))
      throw new AppError(
        'invalid',
        `the packages of the harness are not installed, and ${path.dirname(file)} cannot be written`,
        {
          cause: error,
        },
      )
    const other = await readJson<{ pid: number; startTime: string }>(file)
    if (other !== null && !isAlive(other)) await rm(file, { force: true })
    return false
  }
}

/** @param env of the platform, of which npm gets what it needs */
export const createHarnessPackages = (say: (text: string) => void, env: NodeJS.ProcessEnv): HarnessPackages => {
  const running = new Map<string, Promise<void>>()

  const install = async (dir: string): Promise<void> => {
    const since = Date.now()
    const seconds = (): string => `${Math.round((Date.now() - since) / 1_000)} s`
    const name = path.basename(dir)
    say(`installing the packages of the harness ${name}: this is its first use`)
    const telling = setInterval(() => say(`installing the packages of the harness ${name}: ${seconds()}`), tellEveryMs)
    const file = path.join(dir, LOCK)
    try {
      while (!(await tryLock(file))) {
        await sleep(lockPollMs)
        if (await isInstalled(dir)) return
      }
      try {
        if (!(await isInstalled(dir))) await npmCi(dir, env)
      } finally {
        await rm(file, { force: true })
      }
    } finally {
      clearInterval(telling)
    }
    say(`installed the packages of the harness ${name} in ${seconds()}`)
  }

  return {
    async ensure(harness, onInstalling) {
      const dir = await packagesOf(harness)
      if (await isInstalled(dir)) return
      onInstalling()
      const work = running.get(dir) ?? install(dir).finally(() => running.delete(dir))
      running.set(dir, work)
      await work
    },
  }
}
