import { existsSync } from 'node:fs'
import { chmod, copyFile, mkdir, mkdtemp, readFile, rename, rm, symlink } from 'node:fs/promises'
import path from 'node:path'
import { installPackages } from '../cluster/node-packages.ts'
import { run } from './run.ts'

/** What `node:<version>-bookworm-slim` has beside Debian itself. */
const SUITE = 'bookworm'
const NPM = '11.21.2'
const USER_ID = '1000'

export type BaseOptions = { root: string; cache: string; say: (text: string) => void }

const nodeVersionOf = async (root: string): Promise<string> => {
  const { dependencies } = JSON.parse(await readFile(path.join(root, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>
  }
  return dependencies['node'] ?? ''
}

const addNode = async (root: string, rootfs: string): Promise<void> => {
  const local = path.join(rootfs, 'usr/local')
  await mkdir(path.join(local, 'bin'), { recursive: true })
  await copyFile(path.join(root, 'node_modules/node/bin/node'), path.join(local, 'bin/node'))
  await chmod(path.join(local, 'bin/node'), 0o755)
  await run('npm', ['install', '--global', '--prefix', local, '--no-audit', '--no-fund', `npm@${NPM}`])
  await run('chroot', [rootfs, 'groupadd', '--gid', USER_ID, 'node'])
  const user = ['--uid', USER_ID, '--gid', 'node', '--shell', '/bin/bash', '--create-home', 'node']
  await run('chroot', [rootfs, 'useradd', ...user])
  await symlink('/usr/local/bin/node', path.join(local, 'bin/nodejs'))
}

/**
 * The root file system of a `node:…-bookworm-slim`, made from Debian's packages and Node's and npm's of the npm registry.
 * @returns a tarball, from the cache if it was made before
 * @throws Error for an image of another name: there is no registry to have it from
 */
export const baseTarball = async (image: string, { root, cache, say }: BaseOptions): Promise<string> => {
  const node = await nodeVersionOf(root)
  const name = `node:${node}-${SUITE}-slim`
  if (image !== name)
    throw new Error(`FROM ${image}: without Docker only ${name} can be made, the Node of package.json`)
  const file = path.join(cache, `node-${node}-npm-${NPM}-${SUITE}.tar`)
  if (existsSync(file)) return file
  await installPackages({ mmdebstrap: 'mmdebstrap' }, say)
  say(`making ${name}`)
  const work = await mkdtemp(path.join(cache, 'base-'))
  const rootfs = path.join(work, 'rootfs')
  try {
    // What the machine's apt knows of its network, such as a proxy, holds for this one, too.
    const acquire = (await run('apt-config', ['dump', '--no-empty', 'Acquire'])).trim().split('\n')
    const options = acquire.flatMap((line) => ['--aptopt', line])
    await run('mmdebstrap', ['--quiet', '--variant=minbase', '--mode=root', ...options, SUITE, rootfs])
    await addNode(root, rootfs)
    await run('tar', ['--numeric-owner', '--one-file-system', '-C', rootfs, '-cf', `${file}.${process.pid}`, '.'])
    await rename(`${file}.${process.pid}`, file)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  return file
}
