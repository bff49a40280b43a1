import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, mkdtemp, rename, rm, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { run } from './run.ts'
import type { ImageConfig } from './stages.ts'

/** An image as one tarball: https://github.com/opencontainers/image-spec/blob/main/image-layout.md */
type Descriptor = { mediaType: string; digest: string; size: number; annotations?: Record<string, string> }

const TYPE = 'application/vnd.oci.image'
/** The same files make the same image. */
const EPOCH = '1970-01-01T00:00:00Z'
const SAME = ['--sort=name', '--mtime=@0', '--numeric-owner']
const ARCHITECTURES: Record<string, string> = { x64: 'amd64', arm64: 'arm64' }

const digestOf = async (file: string): Promise<string> => {
  const hash = createHash('sha256')
  await pipeline(createReadStream(file), hash)
  return hash.digest('hex')
}

const addFile = async (blobs: string, file: string, mediaType: string): Promise<Descriptor> => {
  const digest = await digestOf(file)
  const { size } = await stat(file)
  await rename(file, path.join(blobs, digest))
  return { mediaType, digest: `sha256:${digest}`, size }
}

const addJson = async (blobs: string, content: object, mediaType: string): Promise<Descriptor> => {
  const file = path.join(blobs, 'new')
  await writeFile(file, JSON.stringify(content))
  return addFile(blobs, file, mediaType)
}

/** Packs a root file system, as one layer, and how it is started. @param name such as `localhost/lap-opencode:1` */
export const packImage = async (
  { rootfs, config }: { rootfs: string; config: ImageConfig },
  name: string,
  file: string,
): Promise<void> => {
  const layout = await mkdtemp(`${file}.layout-`)
  try {
    const blobs = path.join(layout, 'blobs/sha256')
    await mkdir(blobs, { recursive: true })
    await run('tar', [...SAME, '--one-file-system', '-C', rootfs, '-cf', path.join(layout, 'layer'), '.'])
    const layer = await addFile(blobs, path.join(layout, 'layer'), `${TYPE}.layer.v1.tar`)
    const description = {
      architecture: ARCHITECTURES[process.arch] ?? process.arch,
      os: 'linux',
      created: EPOCH,
      config,
      rootfs: { type: 'layers', diff_ids: [layer.digest] },
      history: [{ created: EPOCH }],
    }
    const configBlob = await addJson(blobs, description, `${TYPE}.config.v1+json`)
    const mediaType = `${TYPE}.manifest.v1+json`
    const manifest = await addJson(
      blobs,
      { schemaVersion: 2, mediaType, config: configBlob, layers: [layer] },
      mediaType,
    )
    const [, tag = 'latest'] = /:([^/:]+)$/.exec(name) ?? []
    const annotations = { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': tag }
    const index = { schemaVersion: 2, mediaType: `${TYPE}.index.v1+json`, manifests: [{ ...manifest, annotations }] }
    await writeFile(path.join(layout, 'index.json'), JSON.stringify(index))
    await writeFile(path.join(layout, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
    const draft = `${file}.${process.pid}`
    await run('tar', [...SAME, '-C', layout, '-cf', draft, 'oci-layout', 'index.json', 'blobs'])
    await rename(draft, file)
  } finally {
    await rm(layout, { recursive: true, force: true })
  }
}
