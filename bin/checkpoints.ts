import { setTimeout as sleep } from 'node:timers/promises'
import type { Config } from '../config/config.ts'
import { createPostgresCheckpoints } from '../db/checkpoint-archive.ts'
import type { Sql } from '../db/sql.ts'
import type { CheckpointStores } from '../domain/checkpoint.ts'
import { checkpointStoreProbeMs } from '../domain/limits.ts'
import type { S3Checkpoints } from '../s3/checkpoints.ts'
import type { Problem } from '../sandbox/inspector.ts'
import type { Logger } from '../telemetry/log.ts'

type Options = { log: Logger; signal: AbortSignal; onProblems: (problems: Problem[]) => void }

/** What is wrong is said once, and again when it is something else. Sessions go on meanwhile. */
const watch = async (s3: S3Checkpoints, { log, signal, onProblems }: Options): Promise<void> => {
  for (let said = ''; ;) {
    const problem = await s3.problem()
    if (signal.aborted) return
    onProblems(problem === null ? [] : [problem])
    const now = problem?.what ?? ''
    if (problem !== null && now !== said) log.error({ event: 'checkpoint_store_problem', ...problem }, problem.what)
    if (problem === null && said !== '') log.info('the store of checkpoints can be used')
    said = now
    await sleep(checkpointStoreProbeMs, undefined, { signal, ref: false })
  }
}

/** The stores of checkpoints. The library for S3 takes a quarter of a second and is loaded only where a bucket is named. */
export const openCheckpoints = async (
  { checkpoint }: Pick<Config, 'checkpoint'>,
  sql: Sql,
  options: Options,
): Promise<AsyncDisposable & { stores: CheckpointStores }> => {
  const postgres = createPostgresCheckpoints(sql)
  const settings = checkpoint.s3
  const s3 = settings && (await import('../s3/checkpoints.ts')).createS3Checkpoints(settings)
  const ended = new AbortController()
  const signal = AbortSignal.any([options.signal, ended.signal])
  if (s3 !== null) void watch(s3, { ...options, signal }).catch(() => {})
  return {
    stores: {
      current: checkpoint.store === 's3' && s3 !== null ? s3 : postgres,
      of: (kind) => (kind === 's3' ? s3 : postgres),
    },
    async [Symbol.asyncDispose]() {
      ended.abort()
      s3?.close()
    },
  }
}
