import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { freePort } from '../tools/dev/ports.ts'
import { createSender } from './post.ts'
import { newSecret, signedHeaders } from './signature.ts'

/** The receiver of docs/webhooks.md, as it is written there. */

const root = path.join(import.meta.dirname, '..')
const secret = newSecret()
let dir: string
let url: string
let output = ''
let end: () => Promise<void>

beforeAll(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'lap-receiver-'))
  const page = await readFile(path.join(root, 'docs/webhooks.md'), 'utf8')
  const [, code = ''] = /```js\n([\s\S]*?)```/.exec(page) ?? []
  await writeFile(path.join(dir, 'receiver.mjs'), code)
  await symlink(path.join(root, 'node_modules'), path.join(dir, 'node_modules'))
  const port = await freePort()
  url = `http://127.0.0.1:${port}/`
  const receiver = spawn(process.execPath, ['receiver.mjs'], {
    cwd: dir,
    env: { WEBHOOK_SECRET: secret, PORT: String(port) },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  for (const stream of [receiver.stdout, receiver.stderr])
    stream.on('data', (text: Buffer) => (output += text.toString()))
  const exited = once(receiver, 'exit')
  end = async () => {
    receiver.kill()
    await exited
  }
  while (
    !(await fetch(url).then(
      () => true,
      () => false,
    ))
  ) {
    if (receiver.exitCode !== null) throw new Error(output)
    await sleep(25)
  }
})
afterAll(async () => {
  await end?.()
  await rm(dir, { recursive: true, force: true })
})

const body = JSON.stringify({ type: 'turn.finished', timestamp: new Date().toISOString(), data: { session_id: 's-1' } })
const send = (signedWith: string, sent = body) => {
  const headers = signedHeaders({ id: 'm-1', body }, [signedWith], new Date())
  return createSender({ allowPrivate: true }).post({ url, headers, body: sent, signal: new AbortController().signal })
}

test('the receiver of the page takes what is signed, once, and refuses everything else', async () => {
  expect(await send(secret)).toMatchObject({ statusCode: 204 })
  expect(await send(secret)).toMatchObject({ statusCode: 204 })
  expect(await send(newSecret())).toMatchObject({ statusCode: 400 })
  expect(await send(secret, body.replace('s-1', 's-2'))).toMatchObject({ statusCode: 400 })
  expect(output).toBe("turn.finished { session_id: 's-1' }\n")
})
