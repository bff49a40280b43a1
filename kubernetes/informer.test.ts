import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { fixedCredentials } from '../test/scripted-cluster.ts'
import { createKubeClient } from './client.ts'
import type { KubeClient } from './client.ts'
import { createInformer } from './informer.ts'
import type { Informer } from './informer.ts'
import type { KubeObject } from './objects.ts'

/** The list and watch protocol over HTTP, with a switch for each thing that goes wrong on a network; a real API server is used by the cluster tests. */
const createPeer = () => {
  const objects = new Map<string, KubeObject>()
  const watches = new Set<{ response: http.ServerResponse; from: number }>()
  const asked: URL[] = []
  const answers: ((response: http.ServerResponse) => void)[] = []
  let version = 100
  let oldest = 0
  const send = (response: http.ServerResponse, event: object): void => void response.write(`${JSON.stringify(event)}\n`)
  const server = http.createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://peer')
    asked.push(url)
    const answer = answers.shift()
    if (answer !== undefined) return answer(response)
    response.setHeader('content-type', 'application/json')
    if (url.searchParams.get('watch') !== 'true')
      return void response.end(
        JSON.stringify({ metadata: { resourceVersion: String(version) }, items: [...objects.values()] }),
      )
    const from = Number(url.searchParams.get('resourceVersion'))
    response.flushHeaders()
    if (from < oldest) {
      send(response, { type: 'ERROR', object: { kind: 'Status', code: 410, reason: 'Expired', message: 'too old' } })
      return void response.end()
    }
    for (const object of objects.values())
      if (Number(object.metadata.resourceVersion) > from) send(response, { type: 'ADDED', object })
    const watch = { response, from }
    watches.add(watch)
    request.once('close', () => watches.delete(watch))
  })
  const tell = (event: object): void => {
    for (const { response } of watches) send(response, event)
  }
  return {
    server,
    asked,
    answers,
    watches,
    set(name: string): void {
      const object = { metadata: { name, uid: `uid-${name}`, resourceVersion: String(++version) } }
      tell({ type: objects.has(name) ? 'MODIFIED' : 'ADDED', object })
      objects.set(name, object)
    },
    delete(name: string): void {
      const object = objects.get(name)
      objects.delete(name)
      version++
      if (object !== undefined)
        tell({
          type: 'DELETED',
          object: { ...object, metadata: { ...object.metadata, resourceVersion: String(version) } },
        })
    },
    bookmark: (): void => tell({ type: 'BOOKMARK', object: { metadata: { resourceVersion: String(++version) } } }),
    version: () => version,
    forget: (): void => void (oldest = version),
    cut(): void {
      for (const { response } of watches) response.destroy()
    },
    end(): void {
      for (const { response } of watches) response.end()
      watches.clear()
    },
  }
}

let peer: ReturnType<typeof createPeer>
let client: KubeClient
let ending: AbortController
let informer: Informer<KubeObject>
let changes: string[]

beforeEach(async () => {
  peer = createPeer()
  peer.server.listen(0, '127.0.0.1')
  await once(peer.server, 'listening')
  const server = `http://127.0.0.1:${(peer.server.address() as AddressInfo).port}`
  client = createKubeClient(fixedCredentials(server))
  ending = new AbortController()
  changes = []
})

afterEach(async () => {
  ending.abort(new Error('over'))
  await client[Symbol.asyncDispose]()
  peer.server.closeAllConnections()
  peer.server.close()
})

const begin = async (): Promise<void> => {
  informer = createInformer({ client, path: '/things', signal: ending.signal })
  informer.onChange(({ type, object }) => changes.push(`${type} ${object.metadata.name}`))
  await informer.synced(AbortSignal.timeout(5_000))
}

const until = async (what: () => boolean): Promise<void> => {
  for (const deadline = performance.now() + 5_000; !what(); await sleep(5))
    if (performance.now() > deadline) throw new Error(`it did not come true: ${what.toString()}`)
}
const names = (): string[] => informer.all().map(({ metadata }) => metadata.name)
const lists = (): number => peer.asked.filter((url) => !url.searchParams.has('watch')).length
const watchesFrom = (): (string | null)[] =>
  peer.asked.filter((url) => url.searchParams.has('watch')).map((url) => url.searchParams.get('resourceVersion'))

test('it lists once and follows every change', async () => {
  peer.set('a')
  await begin()
  expect(names()).toEqual(['a'])
  await until(() => peer.watches.size === 1)
  peer.set('b')
  peer.delete('a')
  await until(() => changes.length === 3)
  expect(changes).toEqual(['set a', 'set b', 'deleted a'])
  expect(lists()).toBe(1)
})

test.each(['cut', 'end'] as const)(
  'a watch that is %s goes on where it was, a bookmark included, without a new list',
  async (how) => {
    await begin()
    await until(() => peer.watches.size === 1)
    peer.set('a')
    peer.bookmark()
    const bookmark = String(peer.version())
    await until(() => changes.length === 1)
    await sleep(20)
    peer[how]()
    peer.set('b')
    await until(() => names().length === 2)
    expect(lists()).toBe(1)
    expect(watchesFrom().at(-1)).toBe(bookmark)
    expect(changes).toEqual(['set a', 'set b'])
  },
)

test('where the server has forgotten the version everything is listed anew, and deletions in between are told', async () => {
  peer.set('a')
  peer.set('b')
  await begin()
  await until(() => peer.watches.size === 1)
  peer.cut()
  peer.delete('a')
  peer.set('c')
  peer.forget()
  await until(() => names().includes('c') && !names().includes('a'))
  expect(lists()).toBe(2)
  expect(changes.slice(2)).toEqual(['deleted a', 'set c'])
})

test('while the server refuses nothing is called gone, and it is not asked before it wants to be', async () => {
  peer.set('a')
  await begin()
  await until(() => peer.watches.size === 1)
  const refuse = (response: http.ServerResponse): void => {
    response.writeHead(429, { 'retry-after': '1' }).end('{"message":"too many requests"}')
  }
  peer.answers.push(refuse)
  const startedAt = performance.now()
  peer.cut()
  await until(() => peer.answers.length === 0)
  expect(names()).toEqual(['a'])
  peer.set('b')
  await until(() => names().length === 2)
  expect(performance.now() - startedAt).toBeGreaterThan(950)
  expect(changes).toEqual(['set a', 'set b'])
})

test('a line that is no JSON ends the watch, and it is taken up again', async () => {
  await begin()
  await until(() => peer.watches.size === 1)
  for (const { response } of peer.watches) response.write('<html>\n')
  await until(() => watchesFrom().length === 2)
  peer.set('a')
  await until(() => names().length === 1)
  expect(lists()).toBe(1)
})

test('a request waits as it is told and is sent again; a refusal is not', async () => {
  peer.answers.push((response) => void response.writeHead(429, { 'retry-after': '1' }).end())
  const startedAt = performance.now()
  await client.json({ path: '/things' })
  expect(performance.now() - startedAt).toBeGreaterThan(950)
  const before = peer.asked.length
  peer.answers.push((response) => void response.writeHead(403).end('{"reason":"Forbidden","message":"no"}'))
  await expect(client.json({ path: '/things' })).rejects.toMatchObject({
    name: 'KubeError',
    status: 403,
    message: 'no',
  })
  expect(peer.asked.length).toBe(before + 1)
})

test('a server that never answers is given up at the deadline', async () => {
  peer.answers.push(() => undefined)
  const startedAt = performance.now()
  await expect(client.json({ path: '/things', timeoutMs: 300 })).rejects.toMatchObject({ code: 'unavailable' })
  expect(performance.now() - startedAt).toBeLessThan(1_500)
})
