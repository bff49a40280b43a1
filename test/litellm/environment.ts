import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { cacheDir, withBuildLock } from '../../tools/dev/cache.ts'

/** What a Python environment is made of. */
export type Pins = {
  /** Name of its folder in the cache, to which a hash is added. */
  name: string
  /** File of versions and checksums, as `pip` reads it; whatever is needed is in it. */
  requirements: string
  /** The package it is for. */
  package: string
}

const LITELLM: Pins = {
  name: 'litellm',
  // What it leaves out of LiteLLM's own requirements is told in requirements.in.
  requirements: fileURLToPath(new URL('requirements.txt', import.meta.url)),
  package: 'litellm',
}

const OLDEST = [3, 10] as const
/** Installing takes a minute; a slow mirror takes longer. */
const INSTALL_TIMEOUT_MS = 900_000
const QUICK_TIMEOUT_MS = 30_000

const run = promisify(execFile)

const lastLines = (text: string): string => text.trim().split('\n').slice(-8).join('\n')

/** @throws Error with the last lines of what it printed */
const python = async (program: string, args: string[], timeout: number): Promise<string> => {
  try {
    return (await run(program, args, { timeout, maxBuffer: 32 * 1_024 * 1_024 })).stdout
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
    throw new Error(
      `${path.basename(program)} ${args.slice(0, 3).join(' ')} … failed:\n${lastLines(stdout + stderr)}`,
      {
        cause: error,
      },
    )
  }
}

/** Version of the machine's Python, and where it lives: an environment belongs to both. */
const findPython = async (): Promise<{ version: string; prefix: string }> => {
  const ask = 'import sys; print("%d.%d" % sys.version_info[:2]); print(sys.base_prefix)'
  const said = await python('python3', ['-c', ask], QUICK_TIMEOUT_MS).catch((error: unknown) => {
    throw new Error('The LiteLLM proxy of these tests needs Python 3.10 or newer as `python3` on the PATH.', {
      cause: error,
    })
  })
  const [version = '', prefix = ''] = said.trim().split('\n')
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (major !== OLDEST[0] || minor < OLDEST[1])
    throw new Error(`The LiteLLM proxy of these tests needs Python 3.10 or newer; \`python3\` is ${version}.`)
  return { version, prefix }
}

/** Whether an environment is whole: its Python starts, and finds what it is for. */
const works = async (dir: string, pins: Pins): Promise<boolean> => {
  const ask = `import importlib.metadata as m; m.version("${pins.package}")`
  try {
    await python(path.join(dir, 'bin', 'python'), ['-c', ask], QUICK_TIMEOUT_MS)
    return true
  } catch {
    return false
  }
}

const build = async (dir: string, pins: Pins): Promise<void> => {
  await python('python3', ['-m', 'venv', dir], INSTALL_TIMEOUT_MS).catch((error: unknown) => {
    throw new Error(
      "The LiteLLM proxy of these tests needs Python's module venv (on Debian and Ubuntu: apt-get install python3-venv).",
      { cause: error },
    )
  })
  const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-input', '--only-binary', ':all:']
  const exactly = ['--no-deps', '--require-hashes', '--requirement', pins.requirements]
  await python(path.join(dir, 'bin', 'python'), [...pip, ...exactly], INSTALL_TIMEOUT_MS)
  if (!(await works(dir, pins))) throw new Error(`The Python environment in ${dir} is not usable after it was made.`)
}

/** What builds that were killed have left. */
const removeDrafts = async (dir: string): Promise<void> => {
  const [parent, name] = [path.dirname(dir), path.basename(dir)]
  for (const entry of await readdir(parent))
    if (entry.startsWith(`${name}.`) && !entry.startsWith(`${name}.lock`))
      await rm(path.join(parent, entry), { recursive: true, force: true })
}

/**
 * An environment in the cache, shared by all runs: made if it is missing, made anew if it is broken, by one process at a time. It is put in place whole, by a
 * rename. (Python finds itself by where it is started; programs that `pip` wrote must be given to it, their first line names the folder before.)
 * @returns its folder
 */
export const pythonEnvironment = async (pins: Pins, say: (text: string) => void): Promise<string> => {
  const { version, prefix } = await findPython()
  const key = createHash('sha256')
    .update(await readFile(pins.requirements))
    .update(`${version} ${prefix}`)
  const dir = path.join(cacheDir(), `${pins.name}-${key.digest('hex').slice(0, 16)}`)
  if (await works(dir, pins)) return dir
  await mkdir(cacheDir(), { recursive: true })
  const onWait = (): void => say(`another process installs ${pins.package} already; waiting`)
  await withBuildLock(`${dir}.lock`, onWait, async () => {
    if (await works(dir, pins)) return
    const startedAt = Date.now()
    say(`installing ${pins.package}`)
    await removeDrafts(dir)
    const draft = `${dir}.${process.pid}`
    await build(draft, pins)
    await rm(dir, { recursive: true, force: true })
    await rename(draft, dir)
    say(`${pins.package} was installed in ${((Date.now() - startedAt) / 1_000).toFixed(0)} s`)
  })
  return dir
}

/** The environment of the LiteLLM proxy: about 500 MB, and a minute or two the first time. */
export const liteLlmEnvironment = (say: (text: string) => void): Promise<string> => pythonEnvironment(LITELLM, say)
