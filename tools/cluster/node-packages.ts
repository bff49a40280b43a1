import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import path from 'node:path'
import { run } from '../image/run.ts'

const FOLDERS = (process.env['PATH'] ?? '').split(path.delimiter).concat('/usr/local/sbin', '/usr/sbin', '/sbin')

/** Where a command is; null when there is none of that name. */
export const findCommand = async (name: string): Promise<string | null> => {
  for (const folder of new Set(FOLDERS)) {
    const file = path.join(folder, name)
    const found = await access(file, constants.X_OK).then(
      () => true,
      () => false,
    )
    if (folder !== '' && found) return file
  }
  return null
}

/** The packages, by the command of each, whose command is missing. */
export const missingPackages = async (commands: Record<string, string>): Promise<string[]> => {
  const missing: string[] = []
  for (const [command, name] of Object.entries(commands)) if ((await findCommand(command)) === null) missing.push(name)
  return missing
}

const apt = async (args: string[]): Promise<void> => {
  const options = ['--yes', '--quiet', '--no-install-recommends', '-o', 'DPkg::Lock::Timeout=300']
  await run('apt-get', [...options, ...args], { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } })
}

/** Whether packages can be had that are missing. */
export const canInstall = async (): Promise<boolean> =>
  process.getuid?.() === 0 && (await findCommand('apt-get')) !== null

/** Installs those of Debian's packages whose command is missing, and says so. @param commands the package by command */
export const installPackages = async (commands: Record<string, string>, say: (text: string) => void): Promise<void> => {
  const missing = await missingPackages(commands)
  if (missing.length === 0) return
  if (!(await canInstall())) throw new Error(`Missing, and to be installed by root: ${missing.join(' ')}`)
  say(`installing Debian packages: ${missing.join(' ')}`)
  await apt(['install', ...missing]).catch(async () => {
    await apt(['update'])
    await apt(['install', ...missing])
  })
}
