import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import type { S3Settings } from '../../s3/checkpoints.ts'
import { buildS3Server } from '../../tools/cluster/binaries.ts'
import { freePort } from '../../tools/dev/ports.ts'

/** A real S3 server with one bucket, in a folder of its own. */
export type S3Server = AsyncDisposable & {
  settings: S3Settings & { endpoint: string; credentials: NonNullable<S3Settings['credentials']> }
  /** Ends it; its data stay. */
  stop(): Promise<void>
  /** At the same address, with the same data. */
  start(): Promise<void>
}

const run = async (file: string, args: string[], env: Record<string, string>) => {
  const child = spawn(file, args, { env, stdio: ['ignore', 'ignore', 'pipe'] })
  let output = ''
  child.stderr.on('data', (text: Buffer) => (output = (output + text.toString()).slice(-5_000)))
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  return {
    output: () => output,
    hasEnded: () => child.exitCode !== null || child.signalCode !== null,
    async stop(): Promise<void> {
      child.kill('SIGKILL')
      await exited
    },
  }
}

export const startS3Server = async (): Promise<S3Server> => {
  const file = await buildS3Server((line) => console.info(line))
  const dir = mkdtempSync(path.join(tmpdir(), 'lap-s3-'))
  for (const name of ['data', 'meta']) mkdirSync(path.join(dir, name))
  const port = await freePort()
  const endpoint = `http://127.0.0.1:${port}`
  const credentials = {
    accessKeyId: `key-${randomBytes(6).toString('hex')}`,
    secretAccessKey: randomBytes(20).toString('hex'),
  }
  const env = { ROOT_ACCESS_KEY_ID: credentials.accessKeyId, ROOT_SECRET_ACCESS_KEY: credentials.secretAccessKey }
  const args = [
    '--quiet',
    '--port',
    `127.0.0.1:${port}`,
    'posix',
    '--sidecar',
    path.join(dir, 'meta'),
    path.join(dir, 'data'),
  ]
  const settings = {
    bucket: 'lap-checkpoints',
    prefix: 'checkpoints',
    region: 'us-east-1',
    endpoint,
    pathStyle: true,
    credentials,
  }
  let server = await run(file, args, env)

  const answers = async (): Promise<void> => {
    for (const end = Date.now() + 30_000; ; await sleep(50)) {
      if (
        await fetch(endpoint).then(
          () => true,
          () => false,
        )
      )
        return
      if (server.hasEnded() || Date.now() > end) throw new Error(`the S3 server does not answer:\n${server.output()}`)
    }
  }
  await answers()
  const client = new S3Client({
    region: settings.region,
    endpoint,
    forcePathStyle: true,
    credentials: { ...credentials },
  })
  await client.send(new CreateBucketCommand({ Bucket: settings.bucket }))
  client.destroy()
  return {
    settings,
    stop: () => server.stop(),
    async start() {
      server = await run(file, args, env)
      await answers()
    },
    async [Symbol.asyncDispose]() {
      await server.stop()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
