import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { createKubeClient } from './client.ts'
import { loadCredentials } from './credentials.ts'
import { scriptedKubeconfig, startScriptedCluster } from '../test/scripted-cluster.ts'

const TOKEN = 'sk-a-token-of-the-cluster'

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'lap-credentials-'))
})
afterAll(async () => rm(dir, { recursive: true, force: true }))

const kubeconfig = async (text: string): Promise<string> => {
  const file = path.join(dir, 'config')
  await writeFile(file, text)
  return file
}

/** Everything that could be logged of it. */
const wordsOf = (error: unknown): string =>
  Error.isError(error) ? `${error.stack}\n${error.message}\n${wordsOf(error.cause)}` : String(error)

test('a kubeconfig that is no YAML is refused with the place of the mistake, and without a word of it', async () => {
  const file = await kubeconfig(`apiVersion: v1\nusers:\n- name: lap\n  user:\n    token: ${TOKEN}\n   wrong: [\n`)
  const said = await new Promise((resolve) => resolve(loadCredentials(file))).catch(wordsOf)
  expect(said).toMatch(/kubeconfig cannot be read: .*\(6:\d+\)/)
  expect(said).not.toContain(TOKEN)
})

test('what a credential plug-in prints is not repeated', async () => {
  const exec = { apiVersion: 'client.authentication.k8s.io/v1', command: 'echo', args: [TOKEN] }
  const credentials = loadCredentials(await kubeconfig(scriptedKubeconfig('http://127.0.0.1:9', { exec })))
  const said = await credentials.current().catch(wordsOf)
  expect(said).toMatch(/plug-in of the kubeconfig printed is not JSON/)
  expect(said).not.toContain(TOKEN.slice(0, 8))
})

test('a server that repeats the token in its refusal is not quoted with it', async () => {
  await using cluster = await startScriptedCluster()
  cluster.answers.set('/version', { refuse: 401, message: `Bearer ${TOKEN} has expired` })
  const text = scriptedKubeconfig(cluster.client.server, { token: TOKEN })
  await using client = createKubeClient(loadCredentials(await kubeconfig(text)))
  const said = await client.json({ path: '/version' }).catch(wordsOf)
  expect(said).toContain('Bearer [hidden] has expired')
  expect(said).not.toContain(TOKEN)
})

const tokenIs =
  (token: string) =>
  ({ headers }: IncomingMessage) =>
    headers.authorization === `Bearer ${token}` ? { items: [] } : { refuse: 401, message: 'Unauthorized' }

test('a token that was renewed in its file is used once the old one is refused', async () => {
  await using cluster = await startScriptedCluster()
  const { server } = cluster.client
  const file = await kubeconfig(scriptedKubeconfig(server, { token: 'old' }))
  await using client = createKubeClient(loadCredentials(file))
  cluster.answers.set('/api', tokenIs('old'))
  await client.json({ path: '/api' })
  cluster.answers.set('/api', tokenIs('new'))
  await kubeconfig(scriptedKubeconfig(server, { token: 'new' }))
  await expect(client.json({ path: '/api' })).resolves.toEqual({ items: [] })
  const lines: string[] = []
  for await (const line of client.lines({ path: '/api' })) lines.push(line)
  expect(lines).toEqual(['{"items":[]}'])
})

test('a renewed file that names another server is not used: its token is none for this one', async () => {
  await using cluster = await startScriptedCluster()
  await using another = await startScriptedCluster()
  const file = await kubeconfig(scriptedKubeconfig(cluster.client.server, { token: 'old' }))
  await using client = createKubeClient(loadCredentials(file))
  const seen = new Set<string | undefined>()
  cluster.answers.set('/api', ({ headers }) => {
    seen.add(headers.authorization)
    return { refuse: 401, message: 'Unauthorized' }
  })
  await kubeconfig(scriptedKubeconfig(another.client.server, { token: 'of another' }))
  await expect(client.json({ path: '/api' })).rejects.toThrow('credentials')
  expect([...seen]).toEqual(['Bearer old'])
})

test('credentials that are refused say nothing of what was asked for, and what to do', async () => {
  await using cluster = await startScriptedCluster()
  cluster.answers.set('/api', { refuse: 401, message: 'Unauthorized' })
  const file = await kubeconfig(scriptedKubeconfig(cluster.client.server, { token: 'old' }))
  await using client = createKubeClient(loadCredentials(file))
  const error = { name: 'AppError', code: 'unavailable', message: expect.stringMatching(/credentials.*KUBECONFIG/) }
  await expect(client.json({ path: '/api' })).rejects.toMatchObject(error)
})
