import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { pathOf } from '../../kubernetes/objects.ts'
import { createS3Checkpoints } from '../../s3/checkpoints.ts'
import type { S3Checkpoints } from '../../s3/checkpoints.ts'
import { until } from '../until.ts'
import { hasCheckpoint, hasMoved, told } from '../faults/moves.ts'
import {
  createAgent,
  expectWholeLog,
  getSession,
  type LogEvent,
  openSession,
  poolHas,
  reaches,
  say,
  type Session,
  sweep,
  turnsOf,
} from '../faults/world.ts'
import { NAMESPACE, type Platform, startPlatform } from './platform.ts'
import { type S3Server, startS3Server } from './s3-server.ts'

/** Sandboxes in a cluster whose pods are deleted, and checkpoints in a real S3 server. The file of a sandbox has a line for each turn. */
let platform: Platform
let s3: S3Server
let bucket: S3Checkpoints
let agent: string

beforeAll(async () => {
  s3 = await startS3Server()
  const { endpoint, bucket: name, credentials } = s3.settings
  platform = await startPlatform('pod', {
    WARM_POOL_SIZE: '1',
    CHECKPOINT_STORE: 's3',
    CHECKPOINT_S3_BUCKET: name,
    CHECKPOINT_S3_ENDPOINT: endpoint,
    CHECKPOINT_S3_PATH_STYLE: 'true',
    CHECKPOINT_S3_ACCESS_KEY_ID: credentials.accessKeyId,
    CHECKPOINT_S3_SECRET_ACCESS_KEY: credentials.secretAccessKey,
  })
  bucket = createS3Checkpoints(s3.settings)
  agent = await createAgent(platform.stack)
}, 600_000)
afterAll(async () => {
  bucket?.close()
  await platform?.[Symbol.asyncDispose]()
  await s3?.[Symbol.asyncDispose]()
}, 120_000)

const open = (): Promise<Session> => openSession(platform.stack, agent, { wait: true })
/** One message and its reply, and the checkpoint behind it. */
const sayAndStore = async (id: string, text: string): Promise<void> => {
  expect((await say(platform.stack, id, text)).status).toBe(200)
  await hasCheckpoint(platform.stack, id)
}
const podOf = async (id: string): Promise<string> => (await getSession(platform.stack, id)).task_arn ?? 'none'
const deletePod = (name: string): Promise<void> =>
  platform.kube.remove(pathOf('pods', NAMESPACE, name), { gracePeriodSeconds: 0 })
const fileOf = async (id: string): Promise<string[] | undefined> => platform.supervisors.of(await podOf(id))?.file()

test('a session whose pod is deleted between two turns goes on with its files and its conversation', async () => {
  const { id } = await open()
  await sayAndStore(id, 'one')
  await sayAndStore(id, 'two')
  const { harness_session_id: conversation } = (await getSession(platform.stack, id)) as Session & {
    harness_session_id: string
  }
  const [, last] = await turnsOf(platform.stack, id)
  await deletePod(await podOf(id))
  const { data } = await hasMoved(platform.stack, id, 2)
  expect(data).toMatchObject({
    restored: { turn_id: last!.id, conversation: true, files: 1, omitted: 0, problems: [] },
    interrupted_turn: null,
  })
  expect(await fileOf(id)).toEqual(['one', 'two'])
  await sayAndStore(id, 'three')
  expect(await fileOf(id)).toEqual(['one', 'two', 'three'])
  expect(await getSession(platform.stack, id)).toMatchObject({ harness_session_id: conversation })
  await expectWholeLog(platform.stack, id)
}, 180_000)

test('one whose pod is deleted amid a turn loses that turn alone', async () => {
  const { id } = await open()
  await sayAndStore(id, 'one')
  const reply = say(platform.stack, id, 'wait 100000')
  await until('it runs', 30_000, async () => (await turnsOf(platform.stack, id)).at(-1)?.status === 'running')
  await deletePod(await podOf(id))
  expect(await reply).toMatchObject({ status: 409, body: { code: 'turn_interrupted' } })
  const [, cut] = await turnsOf(platform.stack, id)
  expect((await hasMoved(platform.stack, id, 2)).data).toMatchObject({
    interrupted_turn: cut!.id,
    restored: { files: 1 },
  })
  await sayAndStore(id, 'two')
  expect(await fileOf(id)).toEqual(['one', 'two'])
  await expectWholeLog(platform.stack, id)
}, 180_000)

test('a fork takes a warm pod and begins there with the files of its checkpoint; the other session goes on', async () => {
  const { id } = await open()
  await sayAndStore(id, 'one')
  await poolHas(platform.stack, 1)
  const forked = await platform.stack.http<Session>('POST', `/sessions/${id}/fork?wait=ready`, {})
  expect(forked).toMatchObject({ status: 200, body: { status: 'ready', spawn_mode: 'warm' } })
  const fork = forked.body.id
  const [ready] = await told(platform.stack, fork, 'session.ready')
  expect(ready?.data).toMatchObject({ restored: { conversation: true, files: 1 } })
  await sayAndStore(fork, 'of the fork')
  await sayAndStore(id, 'two')
  expect([await fileOf(fork), await fileOf(id)]).toEqual([
    ['one', 'of the fork'],
    ['one', 'two'],
  ])
}, 180_000)

test('while the store is down turns go on and it is told once; when it is back the checkpoint is stored', async () => {
  const { id } = await open()
  await s3.stop()
  expect((await say(platform.stack, id, 'one')).status).toBe(200)
  await until('it is told', 60_000, async () => (await told(platform.stack, id, 'checkpoint.failed')).length > 0)
  expect((await say(platform.stack, id, 'two')).status).toBe(200)
  await s3.start()
  await hasCheckpoint(platform.stack, id)
  expect(await told(platform.stack, id, 'checkpoint.stored')).toHaveLength(1)
  expect(await told(platform.stack, id, 'checkpoint.failed')).toHaveLength(1)
}, 180_000)

test('checkpoints of a session that ended long ago leave the bucket', async () => {
  const { id } = await open()
  await sayAndStore(id, 'one')
  const [{ data }] = (await told(platform.stack, id, 'checkpoint.stored')) as [LogEvent]
  const archives = (): Promise<object[]> => bucket.list(String(data['checkpoint_id']))
  expect(await archives()).toHaveLength(1)
  await platform.stack.http('DELETE', `/sessions/${id}`)
  await reaches(platform.stack, id, 'dead')
  expect(await archives()).toHaveLength(1)
  await platform.stack.sql("update session set ended_at = ended_at - interval '25 hours' where id = $1", [id])
  await until('it is gone', 30_000, async () => {
    await sweep(platform.stack)
    return (await archives()).length === 0
  })
}, 120_000)
