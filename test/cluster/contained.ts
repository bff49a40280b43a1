import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createHash, randomUUID } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { sandboxToken } from '../../sandbox/token.ts'
import { freePort } from '../../tools/dev/ports.ts'
import type { Image } from '../../tools/image/images.ts'
import { run } from '../../tools/image/run.ts'
import { MASTER_KEY } from '../supervisor.ts'

type Descriptor = { digest: string }
type ImageFiles = { manifests: Descriptor[]; layers: Descriptor[]; config: Descriptor }
type ImageConfig = { config: { Env: string[]; Entrypoint: string[]; User: string } }

/** The image's supervisor as its pod runs it: its user, its one writable directory, no rights. Nothing else of a pod: the network is the machine's. */
export type Contained = AsyncDisposable & {
  target: { id: string; endpoint: string }
  token: string
  output(): string
}

const UNSHARE = 'unshare'

/** Mounts are private to it and go with it. */
const IN_IMAGE = `set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
mount -t tmpfs -o mode=0770,uid=0,gid="$3" tmpfs "$1/work"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
root=$1 user=$2 group=$3
shift 3
exec chroot "$root" setpriv --reuid "$user" --regid "$group" --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"`

const unpack = async ({ file }: Image, dir: string): Promise<ImageConfig['config']> => {
  const [layout, rootfs] = [path.join(dir, 'layout'), path.join(dir, 'rootfs')]
  await run('mkdir', [layout, rootfs])
  await run('tar', ['-xf', file, '-C', layout])
  const read = async <T>({ digest }: Descriptor): Promise<T> =>
    JSON.parse(await readFile(path.join(layout, 'blobs', digest.replace(':', '/')), 'utf8')) as T
  const index = JSON.parse(await readFile(path.join(layout, 'index.json'), 'utf8')) as ImageFiles
  const manifest = await read<ImageFiles>(index.manifests[0]!)
  for (const { digest } of manifest.layers)
    await run('tar', ['--numeric-owner', '-xpf', path.join(layout, 'blobs', digest.replace(':', '/')), '-C', rootfs])
  const { config } = await read<ImageConfig>(manifest.config)
  await rm(layout, { recursive: true })
  return config
}

export const runImage = async (image: Image): Promise<Contained> => {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'lap-image-'))
  const { Env, Entrypoint, User } = await unpack(image, dir)
  const id = randomUUID()
  const token = sandboxToken(MASTER_KEY, id)
  const endpoint = `127.0.0.1:${await freePort()}`
  const env = {
    ...Object.fromEntries(Env.map((pair) => pair.split(/=(.*)/s).slice(0, 2) as [string, string])),
    LAP_SANDBOX_ID: id,
    LAP_TOKEN_SHA256: createHash('sha256').update(token).digest('hex'),
    LAP_LISTEN: endpoint,
    LAP_TERMINATION_LOG: '/work/last-words',
  }
  const own = ['--mount', '--pid', '--fork', '--kill-child', '--propagation', 'private']
  const args = ['sh', '-c', IN_IMAGE, 'sh', path.join(dir, 'rootfs'), ...User.split(':'), ...Entrypoint]
  const child = spawn(UNSHARE, [...own, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text: Buffer) => (output += text.toString()))
  const closed = once(child, 'close')
  return {
    target: { id, endpoint: `http://${endpoint}` },
    token,
    output: () => output,
    [Symbol.asyncDispose]: async () => {
      // The whole group: who changes its user is not told of its parent's death any more.
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
      await closed
      await rm(dir, { recursive: true, force: true, maxRetries: 5 })
    },
  }
}
