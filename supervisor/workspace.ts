import { spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { lstat, mkdir, open, readdir, realpath, rm } from 'node:fs/promises'
import path from 'node:path'
import { AppError } from '../domain/errors.ts'
import { type Log, lineSplitter } from './log.ts'

/** Why the sandbox cannot be used; `code` as in the health report. */
export class BootError extends Error {
  override name = 'BootError'
  readonly code: 'clone_failed' | 'setup_failed' | 'harness_exited'
  constructor(code: BootError['code'], message: string) {
    super(message)
    this.code = code
  }
}

const tailLines = 20
/** From the end of a command to the last of what it wrote. */
const lastWordsMs = 500

type Command = { command: string; args: string[]; cwd: string; env: Record<string, string> }

/** Runs a command to its end, its output going to the log. @returns exit code and its last lines */
const run = (
  log: Pick<Log, 'write'>,
  { command, args, cwd, env }: Command,
): Promise<{ code: number | null; tail: string }> =>
  new Promise((resolve) => {
    const tail: string[] = []
    const hear = lineSplitter((line) => {
      log.write(line)
      tail.push(line)
      if (tail.length > tailLines) tail.shift()
    })
    const child = spawn(command, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', hear)
    child.once('error', (error) => resolve({ code: null, tail: error.message }))
    child.once('exit', (code, signal) => {
      const done = (): void => {
        clearTimeout(timer)
        hear('\n')
        resolve({ code, tail: [...tail, ...(signal === null ? [] : [`ended by ${signal}`])].join('\n') })
      }
      // What it has left running in the background may hold its output open for ever.
      const timer = setTimeout(done, lastWordsMs)
      child.once('close', done)
    })
  })

/** Answers git's question for credentials from its environment, so that the token is on no command line and in no file. */
const credentialHelper = '!f() { echo username=x-access-token; echo "password=$LAP_GIT_TOKEN"; }; f'

/** How git reaches the origin of a clone: arguments before its command, and the environment with which they go. */
export const originAccess = (env: Record<string, string>): { args: string[]; env: Record<string, string> } => {
  const token = env['GIT_TOKEN'] ?? env['GITHUB_TOKEN'] ?? env['GH_TOKEN']
  const quiet = { ...env, GIT_TERMINAL_PROMPT: '0' }
  if (token === undefined) return { args: [], env: quiet }
  return { args: ['-c', `credential.helper=${credentialHelper}`], env: { ...quiet, LAP_GIT_TOKEN: token } }
}

/**
 * A shallow clone of one branch; an empty folder when there is no repository.
 * @throws BootError `clone_failed` with git's own words
 */
export const cloneInto = async (
  workspace: string,
  source: { repo_url: string; branch: string; env: Record<string, string> },
  log: Log,
): Promise<void> => {
  if (source.repo_url === '') return void (await mkdir(workspace, { recursive: true }))
  const { args: access, env } = originAccess(source.env)
  const branch = source.branch === '' ? [] : ['--branch', source.branch]
  const args = [
    ...access,
    'clone',
    '--quiet',
    '--depth',
    '1',
    '--single-branch',
    ...branch,
    '--',
    source.repo_url,
    workspace,
  ]
  const { code, tail } = await run(log, { command: 'git', args, cwd: path.dirname(workspace), env })
  if (code !== 0) throw new BootError('clone_failed', tail === '' ? `git ended with ${code}` : tail)
}

/** The commit that a clone is at; null where there is none. */
export const commitOf = async (workspace: string, env: Record<string, string>): Promise<string | null> => {
  const { code, tail } = await run(
    { write: () => undefined },
    { command: 'git', args: ['rev-parse', 'HEAD'], cwd: workspace, env },
  )
  return code === 0 ? tail : null
}

/** @throws BootError `setup_failed` with the last lines of the command */
export const runSetup = async (
  workspace: string,
  command: string,
  env: Record<string, string>,
  log: Log,
): Promise<void> => {
  const { code, tail } = await run(log, { command: 'bash', args: ['-c', command], cwd: workspace, env })
  if (code !== 0) throw new BootError('setup_failed', `the set-up command ended with ${code}: ${tail}`)
}

/** Removes what is in a folder, which itself stays: a harness may know it by more than its name. */
export const emptyFolder = async (folder: string): Promise<void> => {
  for (const name of await readdir(folder)) await rm(path.join(folder, name), { recursive: true, force: true })
}

/** The deepest part of a path that exists, with links resolved. */
const existingParent = async (target: string): Promise<string> => {
  for (let folder = target; ; folder = path.dirname(folder)) {
    const found = await lstat(folder).catch(() => null)
    if (found !== null || folder === path.dirname(folder)) return realpath(folder)
  }
}

/**
 * Writes files into the workspace. A path that leads out of it, also over a link in the repository, is refused.
 * @param which `missing`: what is there already stays
 * @throws AppError `invalid`
 */
export const writeFiles = async (
  workspace: string,
  files: { path: string; content_base64: string }[],
  which: 'all' | 'missing' = 'all',
): Promise<void> => {
  const root = await realpath(workspace)
  const inside = (target: string): boolean => target === root || target.startsWith(root + path.sep)
  for (const file of files) {
    const target = path.resolve(root, file.path)
    const refused = new AppError('invalid', `the file path ${file.path} leads out of the workspace`)
    if (target === root || !inside(target)) throw refused
    const folder = path.dirname(target)
    if (!inside(await existingParent(folder))) throw refused
    if (which === 'missing' && (await lstat(target).catch(() => null)) !== null) continue
    await mkdir(folder, { recursive: true })
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW
    const handle = await open(target, flags, 0o644).catch(() => null)
    if (handle === null) throw new AppError('invalid', `the file ${file.path} cannot be written`)
    try {
      await handle.writeFile(Buffer.from(file.content_base64, 'base64'))
    } finally {
      await handle.close()
    }
  }
}

const quote = (value: string): string => `'${value.replaceAll("'", `'\\''`)}'`

/** A file that `BASH_ENV` names: shells started by the harness read it, so their environment can change after the harness was started. */
export const envFile = (env: Record<string, string>): string =>
  Object.entries(env)
    .filter(([name]) => /^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
    .map(([name, value]) => `export ${name}=${quote(value)}\n`)
    .join('')
