import type { Env } from './env.ts'
import { type Given, pairProblems, type SettingProblem } from './problems.ts'

export type CheckpointConfig = {
  /** Where new ones are stored. */
  store: 'postgres' | 's3'
  /** Of an archive. */
  maxBytes: number
  /** How long checkpoints outlive their session. */
  retentionMs: number
  /** null: no bucket is named. It may be named while `store` is `postgres`, for checkpoints that are there from before. */
  s3: S3Config | null
}

type S3Config = {
  bucket: string
  /** Without slashes at its ends. */
  prefix: string
  region: string
  /** null: AWS. */
  endpoint: string | null
  pathStyle: boolean
  /** null: whatever the AWS SDK finds: variables, profiles, the role of the pod or of the machine. */
  credentials: { accessKeyId: string; secretAccessKey: string } | null
}

export const checkpointProblems = (given: Given): SettingProblem[] => {
  const problems = pairProblems(given, ['CHECKPOINT_S3_ACCESS_KEY_ID', 'CHECKPOINT_S3_SECRET_ACCESS_KEY'])
  if (given['CHECKPOINT_STORE'] === 's3' && given['CHECKPOINT_S3_BUCKET'] === undefined)
    problems.push({ key: 'CHECKPOINT_S3_BUCKET', reason: 'is required when CHECKPOINT_STORE is s3' })
  return problems
}

const s3Of = (env: Env): S3Config | null => {
  const { CHECKPOINT_S3_ACCESS_KEY_ID: accessKeyId, CHECKPOINT_S3_SECRET_ACCESS_KEY: secretAccessKey } = env
  if (env.CHECKPOINT_S3_BUCKET === undefined) return null
  return {
    bucket: env.CHECKPOINT_S3_BUCKET,
    prefix: env.CHECKPOINT_S3_PREFIX,
    region: env.CHECKPOINT_S3_REGION,
    endpoint: env.CHECKPOINT_S3_ENDPOINT ?? null,
    pathStyle: env.CHECKPOINT_S3_PATH_STYLE,
    credentials: accessKeyId === undefined || secretAccessKey === undefined ? null : { accessKeyId, secretAccessKey },
  }
}

export const checkpointOf = (env: Env): CheckpointConfig => ({
  store: env.CHECKPOINT_STORE,
  maxBytes: env.CHECKPOINT_MAX_MIB * 1_024 * 1_024,
  retentionMs: env.CHECKPOINT_RETENTION_HOURS * 3_600_000,
  s3: s3Of(env),
})
