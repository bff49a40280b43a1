import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals'
import { sandboxToken } from '../../sandbox/token.ts'
import { canRunNode } from '../../tools/cluster/node.ts'
import { MASTER_KEY } from '../faults/stack.ts'
import { until } from '../until.ts'
import { hasCheckpoint, hasMoved } from '../faults/moves.ts'
import {
  createAgent,
  getSession,
  type LogEvent,
  type Message,
  openSession,
  poolHas,
  say,
  type Session,
  textOf,
} from '../faults/world.ts'
import { openTerminal } from '../terminal/client.ts'
import { PROMPTS } from '../terminal/prompts.ts'
import { startWordGateway, type WordGateway } from '../word-gateway.ts'
import { GATEWAY_KEY, type RealCluster, type RealPlatform, startRealCluster, startRealPlatform } from './real-node.ts'

/** opencode itself, in pods of a real node: a start takes some 8 s of processor time. */
jest.setTimeout(240_000)

const able = await canRunNode()
if (!able.ok) console.warn(`These tests need a real node, and it cannot run here: ${able.reason}`)

const MODES = [
  { api: 'sandbox', access: 'nodeport' },
  { api: 'pod', access: 'pod-ip' },
] as const

/** Others that hold conversations, each with a gateway that answers in its dialect. */
const OTHERS = ['claude-agent-sdk', 'codex', 'qwen-code']
/** The terminal of Codex runs the image of Codex. */
const IMAGES = ['opencode', ...OTHERS, 'claude-code']

/** Deletes the pod of a session behind whose last turn a checkpoint stands. @returns what the log says of its move */
const losesPod = async (
  { stack, namespace }: RealPlatform,
  kube: RealCluster['kube'],
  id: string,
): Promise<LogEvent> => {
  await hasCheckpoint(stack, id)
  const { task_arn: name, attempt } = await getSession(stack, id)
  await kube.remove(`/api/v1/namespaces/${namespace}/pods/${name}`, { gracePeriodSeconds: 0 })
  return hasMoved(stack, id, attempt + 1, 120_000)
}

/** What the shell tool printed in a turn. */
const printed = (message: Message): string =>
  message.parts
    .filter(({ type }) => type === 'tool')
    .map((part) => (part as { state?: { output?: string } }).state?.output ?? '')
    .join('\n')

;(able.ok ? describe : describe.skip)('a real node', () => {
  let real: RealCluster
  // The first run builds Kubernetes and the image.
  beforeAll(async () => void (real = await startRealCluster(IMAGES)), 1_500_000)
  afterAll(async () => real?.[Symbol.asyncDispose](), 60_000)
  // What a test waits for in vain may be a daemon that has ended, which nothing else would say.
  afterEach(() => real?.node.assertRuns())

  describe.each(MODES)('with K8S_SANDBOX_API=$api and K8S_ACCESS=$access', (mode) => {
    let platform: RealPlatform
    let agent: string
    let session: Session

    beforeAll(async () => void (platform = await startRealPlatform(real, mode)), 120_000)
    afterAll(async () => platform?.[Symbol.asyncDispose](), 60_000)

    const ask = async (text: string): Promise<Message> => {
      const { status, body } = await say(platform.stack, session.id, text)
      expect({ status, body }).toMatchObject({ status: 200 })
      return body
    }
    const sandboxOf = async ({ id }: Session): Promise<{ id: string; name: string; endpoint: string }> => {
      const query =
        'select x.id, x.name, x.endpoint from sandbox x join session s on s.sandbox_id = x.id where s.id = $1'
      const [found] = await platform.stack.sql<{ id: string; name: string; endpoint: string }>(query, [id])
      if (found === undefined) throw new Error(`session ${id} has no sandbox`)
      return found
    }

    test('a cold session is answered by opencode in a pod of its own', async () => {
      agent = await createAgent(platform.stack, { harness_id: 'opencode' })
      const startedAt = performance.now()
      session = await openSession(platform.stack, agent, { wait: true })
      const readyMs = Math.round(performance.now() - startedAt)
      expect(session).toMatchObject({ status: 'ready', spawn_mode: 'cold' })
      expect(textOf(await ask('say hello from a pod'))).toBe('hello from a pod')
      const [row] = await platform.stack.sql<{ phases: object }>('select phases from session where id = $1', [
        session.id,
      ])
      console.info(
        `${mode.api}, ${mode.access}: cold session ready after ${readyMs} ms; ${JSON.stringify(row?.phases)}`,
      )
      const { name, endpoint } = await sandboxOf(session)
      const { items } = await real.kube.get<{ items: { metadata: { name: string }; status: { podIP: string } }[] }>(
        `/api/v1/namespaces/${platform.namespace}/pods`,
      )
      const pod = items.find(({ metadata }) => metadata.name === name)
      const host = mode.access === 'pod-ip' ? pod?.status.podIP : real.node.address
      expect(new URL(endpoint).hostname).toBe(host)
    })

    test('what runs in a sandbox is nobody on the node, may nothing, and is given no secret', async () => {
      const status = printed(await ask('run id -u; id -g; grep -E "^(Cap|NoNewPrivs|Seccomp:)" /proc/self/status'))
      expect(status.trim().split(/\s*\n/)).toEqual([
        '1000',
        '1000',
        ...['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'].map((name) => `${name}:\t0000000000000000`),
        'NoNewPrivs:\t1',
        'Seccomp:\t2',
      ])
      const mounts = printed(
        await ask('run ls -A /var/run/secrets /run/secrets 2>&1; grep -c serviceaccount /proc/mounts'),
      )
      expect(mounts.trim().split('\n').at(-1)).toBe('0')
      expect(mounts).not.toContain('kubernetes.io')
      const seen = printed(
        await ask('run cat README.md; for each in /proc/[0-9]*; do tr "\\0" "\\n" < $each/environ; done 2>&1'),
      )
      expect(seen).toContain('from the repository')
      expect(seen).toContain('PATH=')
      const { id } = await sandboxOf(session)
      const told = await platform.texts()
      expect(told).toContain(id)
      for (const secret of [MASTER_KEY, GATEWAY_KEY, sandboxToken(MASTER_KEY, id)]) {
        expect(seen).not.toContain(secret)
        expect(told).not.toContain(secret)
      }
    })

    test('a warm session is answered at once by a pod that waited for it', async () => {
      await poolHas(platform.stack, 1)
      const startedAt = performance.now()
      const warm = await openSession(platform.stack, agent, { wait: true })
      const readyMs = Math.round(performance.now() - startedAt)
      expect(warm).toMatchObject({ status: 'ready', spawn_mode: 'warm' })
      const { status, body } = await say(platform.stack, warm.id, 'say warm')
      expect({ status, text: textOf(body) }).toEqual({ status: 200, text: 'warm' })
      console.info(`${mode.api}, ${mode.access}: warm session ready after ${readyMs} ms`)
      const { name } = await sandboxOf(warm)
      await until('the cluster knows whose pod it is', 15_000, async () => {
        const path = `/api/v1/namespaces/${platform.namespace}/pods/${name}`
        const { metadata } = await real.kube.get<{ metadata: { labels: Record<string, string> } }>(path)
        return metadata.labels['lap/state'] === 'claimed' && metadata.labels['lap/session'] === warm.id
      })
      await platform.stack.http('DELETE', `/sessions/${warm.id}`)
    })

    test('a session whose pod is deleted goes on in another one, with its conversation and its files', async () => {
      await ask('run echo made > made.txt')
      const { data } = await losesPod(platform, real.kube, session.id)
      expect(data).toMatchObject({ attempt: 2, restored: { conversation: true, files: 1, problems: [] } })
      expect(printed(await ask('run cat made.txt')).trim()).toBe('made')
      expect(await getSession(platform.stack, session.id)).toMatchObject({ status: 'ready', attempt: 2 })
    })

    test('nothing is left of an agent that is deleted with its sessions: no object, and nothing that runs', async () => {
      expect((await platform.stack.http('DELETE', `/agents/${agent}`)).status).toBe(204)
      const names = await until('no object is left', 60_000, async () => {
        const objects = await platform.objects()
        return Object.values(objects).every((each) => each.length === 0) ? objects : null
      })
      expect(Object.keys(names)).toEqual(
        mode.api === 'sandbox' ? ['sandboxes', 'pods', 'services'] : ['pods', 'services'],
      )
      await until('no container runs', 30_000, async () => (await real.node.ctr('tasks', 'ls', '-q')) === '')
    })
  })

  describe('other harnesses', () => {
    let platform: RealPlatform
    let gateway: WordGateway

    beforeAll(async () => {
      gateway = await startWordGateway(real.node.address)
      const env = { LITELLM_API_BASE: gateway.url, WARM_POOL_SIZE: '0' }
      platform = await startRealPlatform(real, { api: 'pod', access: 'pod-ip' }, env)
    }, 120_000)
    afterAll(async () => {
      await platform?.[Symbol.asyncDispose]()
      await gateway?.[Symbol.asyncDispose]()
    }, 60_000)

    test.each(OTHERS)('%s holds a conversation in a pod, and goes on with it in another one', async (harness) => {
      const agent = await createAgent(platform.stack, { harness_id: harness })
      const { id } = await openSession(platform.stack, agent, { wait: true })
      const sayWord = async (text: string): Promise<void> => {
        const { status, body } = await say(platform.stack, id, text)
        expect({ status, text: textOf(body) }).toEqual({ status: 200, text: 'word' })
      }
      await sayWord(`${harness}-first`)
      expect((await losesPod(platform, real.kube, id)).data).toMatchObject({ restored: { conversation: true } })
      await sayWord(`${harness}-second`)
      const asked = gateway.asked.map(({ body }) => JSON.stringify(body)).findLast((body) => body.includes(`${harness}-second`)) // prettier-ignore
      expect(asked).toContain(`${harness}-first`)
      expect((await platform.stack.http('DELETE', `/agents/${agent}`)).status).toBe(204)
    })

    test.each(Object.entries(PROMPTS))(
      '%s is typed into in a pod, and answers on its screen',
      async (harness, prompt) => {
        const agent = await createAgent(platform.stack, { harness_id: harness })
        const { id } = await openSession(platform.stack, agent, { wait: true })
        const { body } = await platform.stack.http<{ url: string }>('POST', `/sessions/${id}/tty-ticket`)
        await using terminal = await openTerminal(`${platform.stack.api().url.replace('http', 'ws')}${body.url}`)
        await terminal.until(prompt)
        terminal.type(`${harness}-typed`)
        await terminal.until(new RegExp(`${harness}-typed`))
        // One that takes what comes fast for a paste takes an Enter in it for a line.
        await sleep(500)
        terminal.type('\r')
        await terminal.until(/^\W*word\s*$/m)
        expect(gateway.asked.map(({ body: each }) => JSON.stringify(each)).join('\n')).toContain(`${harness}-typed`)
        expect((await platform.stack.http('DELETE', `/agents/${agent}`)).status).toBe(204)
      },
    )
  })
})
