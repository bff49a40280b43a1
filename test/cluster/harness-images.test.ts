import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from '@jest/globals'
import { Agent } from 'undici'
import { bootSilenceMs, configure } from '../../kubernetes/configure.ts'
import { createSupervisorClient } from '../../sandbox/supervisor-client.ts'
import { harnessImage } from '../../tools/image/images.ts'
import { run } from '../../tools/image/run.ts'
import { until } from '../faults/stack.ts'
import { MASTER_KEY, bindRequest, readJournal } from '../supervisor.ts'
import { startWordGateway } from '../word-gateway.ts'
import { runImage } from './contained.ts'

/** opencode's image is in the pods of real-node.test.ts. */
const HARNESSES = ['claude-agent-sdk', 'codex', 'qwen-code']

const ofSandbox = (id: string): { status: string; mounts: string; command: string }[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      const read = (name: string): string => readFileSync(`/proc/${pid}/${name}`, 'utf8')
      try {
        if (!read('environ').includes(`LAP_SANDBOX_ID=${id}`)) return []
        return [{ status: read('status'), mounts: read('mounts'), command: read('cmdline') }]
      } catch {
        return []
      }
    })

const able = await run('unshare', ['--mount', '--pid', '--fork', 'true']).then(
  () => true,
  () => false,
)
if (!able) console.warn('These tests make images, which needs root and the right to mount')

;(able ? test : test.skip).each(HARNESSES)(
  'the image of %s holds a conversation as nobody, without rights, and writes in its one directory only',
  async (id) => {
    const image = await harnessImage(id, (text) => console.info(text))
    await using gateway = await startWordGateway()
    await using contained = await runImage(image)
    await using client = createSupervisorClient({ masterKey: MASTER_KEY })
    await using cleanup = new AsyncDisposableStack()
    const agent = new Agent({ bodyTimeout: bootSilenceMs })
    cleanup.defer(() => agent.close())
    const { target, token } = contained
    await until(
      'the supervisor listens',
      30_000,
      async () => (await fetch(`${target.endpoint}/healthz`)).status === 503,
    )
    const configuration = {
      sandbox_id: target.id,
      template_hash: 'hash',
      purpose: 'session' as const,
      harness: { id },
      repo_url: '',
      branch: 'main',
      setup_command: null,
      env: {},
    }
    const signal = AbortSignal.timeout(120_000)
    const end = await configure({ endpoint: target.endpoint, token, agent }, configuration, {
      signal,
      onHealth: () => {},
    })
    expect({ end, output: contained.output() }).toMatchObject({ end: { is: 'ended', last: { state: 'booted' } } })
    await client.bind(target, bindRequest({ url: gateway.url, key: 'key' }, { model: 'the-model' }))
    using journal = readJournal(client, target)
    await client.startTurn(target, { turn_id: 'turn', parts: [{ type: 'text', text: 'say a word' }] })
    const { status, reply } = await journal.finished('turn')
    expect({ status, text: reply?.parts.map((part) => part['text']) }).toEqual({ status: 'done', text: ['word'] })
    expect(gateway.asked.map(({ body }) => body['model'])).toEqual(['the-model'])
    // Without what set all this up.
    const programs = ofSandbox(target.id).filter(({ command }) => !command.startsWith('unshare'))
    expect(programs.length).toBeGreaterThan(1)
    for (const { status, mounts } of programs) {
      expect(status).toMatch(/^Uid:\t1000\t1000\t1000\t1000$/m)
      expect(status).toMatch(/^CapBnd:\t0+$/m)
      expect(status).toMatch(/^NoNewPrivs:\t1$/m)
      expect(mounts).toMatch(/^\S+ \/ \S+ ro,/m)
    }
  },
  // An image that has to be made first takes some minutes.
  900_000,
)
