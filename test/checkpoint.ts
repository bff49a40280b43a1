import { once } from 'node:events'
import { gunzipSync, gzipSync } from 'node:zlib'
import { type Dispatcher, request } from 'undici'
import { type HeaderData, Header, Parser, type ReadEntry } from '../supervisor/node_modules/tar/dist/esm/index.js'
import {
  CHECKPOINT_HEADER,
  CHECKPOINT_ID_HEADER,
  type CheckpointManifest,
  type RestoreReply,
} from '../domain/supervisor-protocol.ts'
import type { TestSupervisor } from './supervisor.ts'

export type Refusal = { status: number; code: string; message: string }
export type TakenCheckpoint = { manifest: CheckpointManifest; archive: Buffer }

type Call = { method: 'POST' | 'PUT'; headers?: Record<string, string>; body: string | Buffer }

/** Each over a connection of its own: one that was idle may be closed by the time it is used again. */
const call = (sandbox: TestSupervisor, { headers, ...given }: Call): Promise<Dispatcher.ResponseData> =>
  request(`${sandbox.target.endpoint}/checkpoint`, {
    ...given,
    headers: { authorization: `Bearer ${sandbox.token}`, ...headers },
    reset: true,
    headersTimeout: 0,
    bodyTimeout: 0,
  })

const refusalOf = async ({ statusCode: status, body }: Dispatcher.ResponseData): Promise<Refusal> => {
  const { error } = (await body.json()) as { error: { code: string; message: string } }
  return { status, code: error.code, message: error.message }
}

export const askForCheckpoint = (
  sandbox: TestSupervisor,
  maxBytes = 100 * 1_024 * 1_024,
): Promise<Dispatcher.ResponseData> => call(sandbox, { method: 'POST', body: JSON.stringify({ max_bytes: maxBytes }) })

/** @throws Error when it is refused */
export const takeCheckpoint = async (sandbox: TestSupervisor, maxBytes?: number): Promise<TakenCheckpoint> => {
  const response = await askForCheckpoint(sandbox, maxBytes)
  if (response.statusCode !== 200) throw new Error(JSON.stringify(await refusalOf(response)))
  const manifest = JSON.parse(
    Buffer.from(String(response.headers[CHECKPOINT_HEADER]), 'base64url').toString('utf8'),
  ) as CheckpointManifest
  return { manifest, archive: Buffer.from(await response.body.arrayBuffer()) }
}

export const refusedCheckpoint = async (sandbox: TestSupervisor, maxBytes?: number): Promise<Refusal> =>
  refusalOf(await askForCheckpoint(sandbox, maxBytes))

const putCheckpoint = (sandbox: TestSupervisor, id: string, archive: Buffer): Promise<Dispatcher.ResponseData> =>
  call(sandbox, { method: 'PUT', headers: { [CHECKPOINT_ID_HEADER]: id }, body: archive })

/** @throws Error when it is refused */
export const restoreCheckpoint = async (
  sandbox: TestSupervisor,
  id: string,
  archive: Buffer,
): Promise<RestoreReply> => {
  const response = await putCheckpoint(sandbox, id, archive)
  if (response.statusCode !== 200) throw new Error(JSON.stringify(await refusalOf(response)))
  return (await response.body.json()) as RestoreReply
}

export const refusedRestore = async (sandbox: TestSupervisor, id: string, archive: Buffer): Promise<Refusal> =>
  refusalOf(await putCheckpoint(sandbox, id, archive))

export type TarEntry = HeaderData & { name: string; body: Buffer | string }

/** What is in an archive, read by the library's own reader. */
const entriesOf = async (archive: Buffer): Promise<TarEntry[]> => {
  const entries: Promise<TarEntry>[] = []
  const read = async (entry: ReadEntry): Promise<TarEntry> => {
    const { path: name, mode, mtime, type, linkpath } = entry
    const body = await entry.concat()
    return { name, mode: mode ?? 0o644, mtime: mtime ?? new Date(0), type, linkpath: linkpath ?? '', body }
  }
  const parser = new Parser({ strict: true, onReadEntry: (entry) => void entries.push(read(entry)) })
  const ended = once(parser, 'end')
  parser.end(gunzipSync(archive))
  await ended
  return Promise.all(entries)
}

/** @param open it goes on: without an end, or, `bodiless`, without the bytes that its headers announce */
export const archiveOf = (
  entries: TarEntry[],
  { open = false, bodiless = false }: { open?: boolean; bodiless?: boolean } = {},
): Buffer => {
  const blocks = entries.flatMap(({ name, body, ...given }) => {
    const bytes = Buffer.from(body)
    const header = new Header({
      mode: 0o644,
      mtime: new Date(0),
      type: 'File',
      size: bytes.length,
      ...given,
      path: name,
    })
    header.encode()
    return bodiless ? [header.block!] : [header.block!, bytes, Buffer.alloc(-bytes.length & 511)]
  })
  return gzipSync(Buffer.concat([...blocks, Buffer.alloc(open ? 0 : 1_024)]))
}

export const rewritten = async (archive: Buffer, change: (entries: TarEntry[]) => TarEntry[]): Promise<Buffer> =>
  archiveOf(change(await entriesOf(archive)))
