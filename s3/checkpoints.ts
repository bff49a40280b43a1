import { Readable } from 'node:stream'
import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadBucketCommand,
  PutObjectCommand,
  S3Client,
  paginateListObjectsV2,
} from '@aws-sdk/client-s3'
import type { CheckpointStore, StoredArchive } from '../domain/checkpoint.ts'
import { AppError, errorText } from '../domain/errors.ts'
import { s3ConnectTimeoutMs, s3SilenceMs } from '../domain/limits.ts'

export type S3Settings = {
  bucket: string
  prefix: string
  region: string
  endpoint: string | null
  pathStyle: boolean
  credentials: { accessKeyId: string; secretAccessKey: string } | null
}

/** What keeps a store from being used, and what to do about it. `what` names no host: anybody may read it. */
export type StoreProblem = { what: string; detail?: string; remedy: string }

export type S3Checkpoints = CheckpointStore & { problem(): Promise<StoreProblem | null>; close(): void }

const statusOf = (error: unknown): number | undefined =>
  (error as { $metadata?: { httpStatusCode?: number } } | null)?.$metadata?.httpStatusCode

/** HEAD has no body that would say more than its status. */
const problemOf = (error: unknown, { bucket, endpoint, region }: S3Settings): StoreProblem => {
  const where = 'The bucket of checkpoints'
  const status = statusOf(error)
  if (status === 404)
    return { what: `${where} does not exist.`, detail: bucket, remedy: 'Make it, or correct CHECKPOINT_S3_BUCKET.' }
  if (status === 401 || status === 403)
    return {
      what: `${where} may not be used with the credentials given.`,
      remedy:
        'Allow s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject, or correct CHECKPOINT_S3_ACCESS_KEY_ID and its secret.',
    }
  if (status === 301 || status === 400)
    return { what: `${where} is not in the region ${region}.`, remedy: 'Correct CHECKPOINT_S3_REGION.' }
  return {
    what: 'The store of checkpoints does not answer.',
    detail: `${endpoint ?? `AWS, region ${region}`}: ${errorText(error)}`,
    remedy: 'See whether it runs, and correct CHECKPOINT_S3_ENDPOINT and CHECKPOINT_S3_PATH_STYLE.',
  }
}

const ignore = (): void => undefined
/** Without one the SDK writes to the console; what fails is told by what is thrown. */
const silent = { trace: ignore, debug: ignore, info: ignore, warn: ignore, error: ignore }

const clientOf = ({ region, endpoint, pathStyle, credentials }: S3Settings): S3Client =>
  new S3Client({
    region,
    forcePathStyle: pathStyle,
    ...(endpoint === null ? {} : { endpoint }),
    // The SDK writes into what it is given.
    ...(credentials === null ? {} : { credentials: { ...credentials } }),
    logger: silent,
    maxAttempts: 3,
    // Checksums in trailers are not understood by every compatible store; the hash in the signature covers the same.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: { connectionTimeout: s3ConnectTimeoutMs, socketTimeout: s3SilenceMs },
  })

/** Archives in a bucket, one object each: `<prefix>/<id>`. */
export const createS3Checkpoints = (settings: S3Settings): S3Checkpoints => {
  const client = clientOf(settings)
  const { bucket, prefix } = settings
  const object = (id: string) => ({ Bucket: bucket, Key: `${prefix}/${id}` })
  return {
    kind: 's3',
    place: `${bucket}/${prefix}`,
    async put(id, archive, abortSignal) {
      const command = new PutObjectCommand({
        ...object(id),
        Body: Readable.from(archive.read()),
        ContentLength: archive.bytes,
        ContentType: 'application/gzip',
      })
      // The signature covers what is sent, and the store refuses anything else.
      command.middlewareStack.add(
        (next) => (args) => {
          const { headers } = args.request as { headers: Record<string, string> }
          headers['x-amz-content-sha256'] = archive.sha256
          return next(args)
        },
        { step: 'build' },
      )
      await client.send(command, { abortSignal })
    },
    async *get(id, abortSignal) {
      const { Body } = await client.send(new GetObjectCommand(object(id)), { abortSignal }).catch((cause: unknown) => {
        // A bucket that is not there says nothing about what was in it.
        if (statusOf(cause) !== 404 || (Error.isError(cause) && cause.name === 'NoSuchBucket')) throw cause
        throw new AppError('not_found', `checkpoint ${id} has no archive in the bucket ${bucket}`, { cause })
      })
      yield* Body as Readable
    },
    async remove(id) {
      await client.send(new DeleteObjectCommand(object(id)))
    },
    async list(idPrefix) {
      const found: StoredArchive[] = []
      const pages = paginateListObjectsV2({ client }, { Bucket: bucket, Prefix: `${prefix}/${idPrefix}` })
      for await (const { Contents = [] } of pages)
        for (const { Key = '', Size = 0, LastModified = new Date() } of Contents)
          found.push({ id: Key.slice(prefix.length + 1), bytes: Size, at: LastModified })
      return found
    },
    async problem() {
      try {
        await client.send(new HeadBucketCommand({ Bucket: bucket }))
        return null
      } catch (error) {
        return problemOf(error, settings)
      }
    },
    close: () => client.destroy(),
  }
}
