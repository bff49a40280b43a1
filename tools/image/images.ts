import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { findGo } from '../cluster/binaries.ts'
import { cacheDir, withBuildLock } from '../dev/cache.ts'
import { type Context, hashOf, openContext } from './context.ts'
import { parseDockerfile } from './dockerfile.ts'
import { keyOf, keysOf } from './keys.ts'
import { packImage } from './oci.ts'
import { run } from './run.ts'
import { buildImage } from './stages.ts'

/** Images as OCI tarballs, made without Docker. They are kept in `LAP_CACHE` under a hash of everything that goes in. */
export type Image = { name: string; file: string }

const root = fileURLToPath(new URL('../..', import.meta.url))
const own = import.meta.dirname

const imagesDir = async (): Promise<string> => {
  const dir = path.join(cacheDir(), 'images')
  await mkdir(dir, { recursive: true })
  return dir
}

const toolHash = async (): Promise<string> => {
  const sources = (await readdir(own)).filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'))
  return hashOf(await openContext(own), sources)
}

type Make = (image: Image, work: string) => Promise<void>

/** What a process that was killed has left, a gigabyte each: nobody else makes anything now. */
const removeDrafts = async (cache: string): Promise<void> => {
  const drafts = (await readdir(cache)).filter((name) => !name.endsWith('.tar') && !name.startsWith('making.json'))
  for (const name of drafts) await rm(path.join(cache, name), { recursive: true, force: true, maxRetries: 5 })
}

/** From the cache, or made now; then what was made of earlier inputs goes. @param id what it is, @param key what it is made of */
const made = async (id: string, key: string, say: (text: string) => void, make: Make): Promise<Image> => {
  const cache = await imagesDir()
  const image = { name: `localhost/lap-${id}:${key}`, file: path.join(cache, `${id}-${key}.tar`) }
  if (existsSync(image.file)) return image
  const onWait = (): void => say('another process makes an image already; waiting')
  await withBuildLock(path.join(cache, 'making.json'), onWait, async () => {
    await removeDrafts(cache)
    if (existsSync(image.file)) return
    const work = await mkdtemp(path.join(cache, `${id}-`))
    try {
      await chmod(work, 0o755)
      await make(image, work)
    } finally {
      await rm(work, { recursive: true, force: true })
    }
    const old = (await readdir(cache)).filter(
      (name) => name.startsWith(`${id}-`) && name.endsWith('.tar') && name !== path.basename(image.file),
    )
    for (const name of old) await rm(path.join(cache, name), { force: true })
  })
  return image
}

const LAYER = 'layer-'

/** What the images of all harnesses come of, by key: their first steps are the same, and made once for all of them. */
const layersInUse = async (context: Context, salt: string): Promise<Set<string>> => {
  const keys = new Set<string>()
  for (const harness of await readdir(path.join(root, 'harness'))) {
    const file = path.join(root, 'harness', harness, 'Dockerfile')
    if (!existsSync(file)) continue
    const dockerfile = parseDockerfile(await readFile(file, 'utf8'))
    for (const stage of dockerfile.stages)
      for (const key of await keysOf(stage, { dockerfile, context, salt })) keys.add(key)
  }
  return keys
}

const removeOldLayers = async (cache: string, inUse: Set<string>): Promise<void> => {
  for (const name of await readdir(cache))
    if (name.startsWith(LAYER) && !inUse.has(path.basename(name, '.tar').slice(LAYER.length)))
      await rm(path.join(cache, name), { force: true })
}

/** The image of a harness, from its Dockerfile. Needs root and Debian's apt. */
export const harnessImage = async (harness: string, say: (text: string) => void): Promise<Image> => {
  const dockerfile = parseDockerfile(await readFile(path.join(root, 'harness', harness, 'Dockerfile'), 'utf8'))
  const [context, salt] = [await openContext(root), await toolHash()]
  const inputs = { dockerfile, context, salt }
  return made(harness, await keyOf(dockerfile.last, inputs), say, async (image, work) => {
    const cache = await imagesDir()
    const base = { root, cache, say }
    const snapshot = (key: string): string => path.join(cache, `${LAYER}${key}.tar`)
    await packImage(await buildImage(dockerfile.last, { ...inputs, base, work, snapshot }), image.name, image.file)
    await removeOldLayers(cache, await layersInUse(context, salt))
  })
}

/** The image of the container that holds a pod's namespaces. Needs Go. */
export const pauseImage = async (say: (text: string) => void): Promise<Image> => {
  const source = path.join(own, 'pause/main.go')
  const inputs = [await toolHash(), await readFile(source, 'utf8')]
  const key = createHash('sha256').update(JSON.stringify(inputs)).digest('hex').slice(0, 16)
  return made('pause', key, say, async (image, work) => {
    const env = { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-buildvcs=false', GO111MODULE: 'off' }
    await run(await findGo(), ['build', '-trimpath', '-ldflags', '-s -w', '-o', path.join(work, 'pause'), source], {
      env,
    })
    await packImage({ rootfs: work, config: { Env: [], Entrypoint: ['/pause'] } }, image.name, image.file)
  })
}
