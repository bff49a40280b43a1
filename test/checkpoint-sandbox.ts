import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { MockActivityEnvironment } from '@temporalio/testing'
import { checkpointActivities } from '../activities/checkpoint.ts'
import type { CheckpointOutcome } from '../activities/checkpoint.ts'
import type { ActivityDeps } from '../activities/deps.ts'
import { createPostgresCheckpoints } from '../db/checkpoint-archive.ts'
import type { Sql } from '../db/sql.ts'
import type { CheckpointStore, CheckpointStores } from '../domain/checkpoint.ts'
import type { BindReply, BindRequest, CheckpointManifest } from '../domain/supervisor-protocol.ts'
import { createSupervisorClient } from '../sandbox/supervisor-client.ts'
import { createLogger } from '../telemetry/log.ts'
import { createMetrics } from '../telemetry/metrics.ts'
import { createSealer } from '../vault/seal.ts'
import { buildConversation } from './conversation.ts'
import type { Conversation } from './conversation.ts'

export const manifest = (over: Partial<CheckpointManifest> = {}): CheckpointManifest => ({
  version: 1,
  harness: { id: 'light' },
  conversation: 'ses',
  has_conversation: true,
  base_commit: null,
  files: 3,
  bytes: 300,
  omitted: [],
  omitted_more: 0,
  ...over,
})

/** Its end of the protocol of checkpoints, with archives of random bytes. */
export type CheckpointSandbox = AsyncDisposable & {
  endpoint: string
  /** What is answered when a checkpoint is asked for. */
  answers: {
    archive: Buffer
    manifest: CheckpointManifest
    refuse: { status: number; code: string } | null
    cutAt: number | null
  }
  /** Since when its harness has had nothing to do with a model; null: it never had. */
  modelIdleMs: number | null
  /** How often one was asked for. */
  asked: number
  /** Archives that were put into it, by the id of their checkpoint. */
  restored: Map<string, Buffer>
  /** What is answered to that. */
  refuseRestore: { status: number; code: string } | null
  /** That is answered when this is over. */
  holdRestore: Promise<void> | null
  /** How many are put into it at this moment, and the most that were. */
  restoring: { now: number; most: number }
}

export const startCheckpointSandbox = async (): Promise<CheckpointSandbox> => {
  const answers: CheckpointSandbox['answers'] = {
    archive: randomBytes(10),
    manifest: manifest(),
    refuse: null,
    cutAt: null,
  }
  const restored = new Map<string, Buffer>()
  const refusal = (response: http.ServerResponse, { status, code }: { status: number; code: string }): void =>
    void response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify({ error: { code } }))
  const report = { conversation: true, files: 3, problems: [] }
  const restore = async (id: string, archive: Buffer, response: http.ServerResponse): Promise<void> => {
    const { restoring } = sandbox
    restoring.most = Math.max(restoring.most, ++restoring.now)
    await sandbox.holdRestore
    restoring.now--
    if (sandbox.refuseRestore !== null) return refusal(response, sandbox.refuseRestore)
    restored.set(id, archive)
    response.end(JSON.stringify({ checkpoint_id: id, ...report }))
  }
  const server = http.createServer((request, response) => {
    const pieces: Buffer[] = []
    request.on('data', (piece: Buffer) => void pieces.push(piece))
    request.on('end', () => {
      const body = Buffer.concat(pieces)
      if (request.method === 'PUT') return void restore(String(request.headers['x-lap-checkpoint-id']), body, response)
      if (request.url === '/healthz') return response.end(JSON.stringify({ model_idle_ms: sandbox.modelIdleMs }))
      if (request.url === '/bind') {
        const { epoch, checkpoint } = JSON.parse(body.toString()) as BindRequest
        const reply: BindReply = { epoch, harness_session_id: 'ses' }
        return response.end(JSON.stringify(checkpoint === undefined ? reply : { ...reply, restored: report }))
      }
      sandbox.asked++
      const { archive, refuse, cutAt } = answers
      if (refuse !== null) return refusal(response, refuse)
      response.writeHead(200, {
        'content-length': archive.length,
        'x-lap-checkpoint': Buffer.from(JSON.stringify(answers.manifest)).toString('base64url'),
      })
      if (cutAt === null) return response.end(archive)
      return response.write(archive.subarray(0, cutAt), () => response.destroy())
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const sandbox: CheckpointSandbox = {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    answers,
    modelIdleMs: null,
    asked: 0,
    restored,
    refuseRestore: null,
    holdRestore: null,
    restoring: { now: 0, most: 0 },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
    },
  }
  return sandbox
}

export const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

/** A store that can be switched off. */
export const switchable = (store: CheckpointStore): CheckpointStore & { up: boolean } => {
  const check = (): void => {
    if (!switched.up) throw new Error('the store is down')
  }
  const switched = {
    ...store,
    up: true,
    async put(...args: Parameters<CheckpointStore['put']>) {
      check()
      await store.put(...args)
    },
    async *get(...args: Parameters<CheckpointStore['get']>) {
      check()
      yield* store.get(...args)
    },
    async remove(id: string) {
      check()
      await store.remove(id)
    },
  }
  return switched
}

/** What activities of checkpoints work with: a real database, real HTTP, and a driver that says that everything lives. */
export const checkpointDeps = (
  sql: Sql,
  store: CheckpointStore = createPostgresCheckpoints(sql),
  maxBytes = 8 * 2 ** 20,
) => {
  const checkpoints: CheckpointStores = { current: store, of: (kind) => (kind === store.kind ? store : null) }
  const driver = { inspect: async () => ({ exists: true, alive: true }) }
  return {
    sql,
    checkpoints,
    driver,
    supervisor: createSupervisorClient({ masterKey: 'a master key' }),
    log: createLogger({ level: 'silent', name: 'test' }),
    metrics: createMetrics(),
    outbox: { kick() {} },
    sealer: createSealer(null),
    config: {
      litellm: { apiBase: 'http://127.0.0.1:9', apiKey: '' },
      checkpoint: { maxBytes, retentionMs: 3_600_000, store: store.kind, s3: null },
    },
  } as unknown as ActivityDeps
}

export const runActivity = <T>(work: () => Promise<T>): Promise<T> => new MockActivityEnvironment().run(work)

/** A session that is ready in that sandbox. */
export const conversationIn = async (sql: Sql, { endpoint }: CheckpointSandbox): Promise<Conversation> => {
  const conversation = await buildConversation(sql)
  await sql.query('update sandbox set endpoint = $2 where id = $1', [conversation.sandbox.id, endpoint])
  return conversation
}

/** What its workflow has done when a checkpoint is due. */
export const storeCheckpoint = (sql: Sql, sessionId: string, deps = checkpointDeps(sql)): Promise<CheckpointOutcome> =>
  runActivity(() => checkpointActivities(deps).storeCheckpoint(sessionId))

/** It has lost its sandbox, and has another one at the same address. */
export const moveWithin = async (
  sql: Sql,
  conversation: Conversation,
  { endpoint }: CheckpointSandbox,
): Promise<void> => {
  const { id } = await conversation.move()
  await sql.query('update sandbox set endpoint = $2 where id = $1', [id, endpoint])
}

/** One message and its end. @returns the turn */
export const exchange = async (conversation: Conversation, text: string): Promise<string> => {
  const { id } = await conversation.send(text)
  await conversation.finish(id)
  return id
}
