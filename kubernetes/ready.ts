import { setTimeout as sleep } from 'node:timers/promises'
import type { Agent } from 'undici'
import { errorText } from '../domain/errors.ts'
import type { FailureCode } from '../domain/session.ts'
import { hasBooted } from '../domain/supervisor-protocol.ts'
import type { Health } from '../domain/supervisor-protocol.ts'
import type { Evidence, ReadyProgress, SandboxSpec } from '../sandbox/driver.ts'
import { SandboxFailedError } from '../sandbox/driver.ts'
import { getOrNull, nodeDoubtMs } from './cluster.ts'
import type { Cluster } from './cluster.ts'
import { type Boot, configurationOf, configure } from './configure.ts'
import { pathOf, resourceOf } from './objects.ts'
import { verdictOf } from './status.ts'
import type { Verdict } from './status.ts'

export type Ready = { endpoint: string; podUid: string }

type Wait = { deadlineMs: number; signal: AbortSignal; onProgress?: ReadyProgress }

export type ReadyContext = {
  cluster: Cluster
  /** Connections to supervisors. */
  agent: Agent
  unschedulableMs: number
  inspect: (name: string) => Promise<Evidence>
}

/** Pause before a supervisor that did not answer is asked again: it listens a moment after its container runs. */
const askAgainMs = 200

/** The copy says that it has failed, the API server says that it lives: they agree soon, and each question is half a dozen requests. */
const confirmAgainMs = 1_000

/** The copy of the cluster is milliseconds behind; an object that it does not show after this is asked for by name. */
const appearMs = 5_000

const inBrackets = (host: string): string => (host.includes(':') ? `[${host}]` : host)

/** @returns null while there is no way to it */
const endpointOf = (cluster: Cluster, name: string, pod: { podIp: string; hostIp: string | null }, port: number) => {
  const { access, services } = cluster
  if (access.by === 'pod-ip') return `http://${inBrackets(pod.podIp)}:${port}`
  const nodePort = services?.get(name)?.spec?.ports?.[0]?.nodePort
  const host = access.nodeHost ?? pod.hostIp
  return nodePort === undefined || host === null ? null : `http://${inBrackets(host)}:${nodePort}`
}

/** Wakes whoever waits when the sandbox' objects change, its supervisor says something, or nobody wants it any more. */
const createBell = (cluster: Cluster, name: string, signal: AbortSignal) => {
  let rung = false
  let wake: (() => void) | null = null
  const ring = (): void => {
    rung = true
    wake?.()
  }
  const stop = cluster.onChange((changed) => {
    if (changed === name) ring()
  })
  signal.addEventListener('abort', ring)
  const next = async (maxMs: number): Promise<void> => {
    if (!rung)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, maxMs)
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    wake = null
    rung = false
  }
  const close = (): void => {
    stop()
    signal.removeEventListener('abort', ring)
  }
  return { ring, next, [Symbol.dispose]: close }
}

/** How long each reason to fail has been seen without a break. */
const createGraces = () => {
  let since: { code: FailureCode; at: number } | null = null
  return {
    /** @returns milliseconds left, 0: it is over */
    leftMs(verdict: Verdict): number | null {
      if (verdict.is !== 'failing') {
        since = null
        return null
      }
      if (since?.code !== verdict.code) since = { code: verdict.code, at: performance.now() }
      return Math.max(0, since.at + verdict.graceMs - performance.now())
    },
  }
}

/** One conversation with the supervisor, begun anew while it breaks. */
const createBoot = (context: ReadyContext, spec: SandboxSpec, signal: AbortSignal, ring: () => void) => {
  const seen: { health: Health | null; boot: Boot | null; trouble: string | null } = {
    health: null,
    boot: null,
    trouble: null,
  }
  /** The address may change: a pod that is deleted while it starts is made anew elsewhere. */
  let where: string | null = null
  const talk = async (): Promise<void> => {
    const onHealth = (health: Health): void => {
      seen.health = health
      ring()
    }
    while (!signal.aborted) {
      const target = { endpoint: where ?? '', token: spec.token, agent: context.agent }
      const boot = await configure(target, configurationOf(spec), { signal, onHealth })
      if (boot.is !== 'broken') {
        seen.boot = boot
        return ring()
      }
      seen.trouble = boot.reason
      await sleep(askAgainMs, undefined, { signal }).catch(() => undefined)
    }
  }
  return {
    seen,
    begin(endpoint: string): void {
      const first = where === null
      where = endpoint
      if (first) void talk()
    },
  }
}

/** An object that was just made is not in the copy at once: until it has been there, its absence means nothing. */
const createSight = (cluster: Cluster, name: string) => {
  const { client, settings } = cluster
  let askAt = performance.now() + appearMs
  let there = false
  return {
    async verdict(unschedulableMs: number): Promise<Verdict> {
      const seen = cluster.seen(name)
      there ||= seen.object !== undefined
      if (!there && performance.now() >= askAt) {
        const asked = getOrNull(client, pathOf(resourceOf(settings.api), settings.namespace, name))
        // Without an answer nothing is known, and nothing is over.
        there = await asked.then(
          (object) => object === null,
          () => false,
        )
        askAt = performance.now() + appearMs
      }
      return there ? verdictOf(seen, { unschedulableMs }) : { is: 'starting', phase: 'pod_pending' }
    },
    /** Milliseconds until it asks. */
    waitMs: (): number => (there ? Number.POSITIVE_INFINITY : Math.max(1, askAt - performance.now())),
  }
}

/** What is known of a failure stands also while the API server cannot be asked for more. */
const inspected = (context: ReadyContext, name: string): Promise<Evidence> =>
  context.inspect(name).catch((error: unknown) => ({ exists: true, error: errorText(error) }))

const fail = async (
  context: ReadyContext,
  name: string,
  what: { code: FailureCode; message: string },
): Promise<never> => {
  throw new SandboxFailedError({ ...failureOf(what), evidence: await inspected(context, name) })
}

/** Waits for a sandbox to have booted (`session`) or to be warm (`pool`), and configures it as soon as it runs. `deadlineMs` counts from now. */
export const awaitReady = async (
  context: ReadyContext,
  spec: SandboxSpec,
  port: number,
  wait: Wait,
): Promise<Ready> => {
  const { cluster, unschedulableMs } = context
  const { name } = spec
  const deadline = performance.now() + wait.deadlineMs
  const ended = new AbortController()
  using bell = createBell(cluster, name, wait.signal)
  const boot = createBoot(context, spec, AbortSignal.any([wait.signal, ended.signal]), bell.ring)
  const graces = createGraces()
  const sight = createSight(cluster, name)
  let shown: string | null = null
  const show = (phase: Parameters<ReadyProgress>[0]): void => {
    if (shown === phase) return
    shown = phase
    wait.onProgress?.(phase)
  }
  try {
    for (;;) {
      wait.signal.throwIfAborted()
      const verdict = await sight.verdict(cluster.wasAway() ? Math.max(unschedulableMs, nodeDoubtMs) : unschedulableMs)
      const { health, boot: over, trouble } = boot.seen
      if (over?.is === 'refused') await fail(context, name, { code: 'setup_failed', message: over.reason })
      // What the supervisor says of itself tells more than how its container ended.
      if (health?.state === 'failed' && health.failure !== null) await fail(context, name, health.failure)
      if (verdict.is === 'failed') {
        const evidence = await inspected(context, name)
        // Copies of two kinds may be of different age; what the API server says now counts.
        if (evidence.alive === false || performance.now() >= deadline)
          throw new SandboxFailedError({ ...failureOf(verdict), evidence })
        await bell.next(confirmAgainMs)
        continue
      }
      const leftMs = graces.leftMs(verdict)
      if (verdict.is === 'failing' && leftMs === 0) await fail(context, name, verdict)
      if (verdict.is === 'starting') show(verdict.phase)
      if (verdict.is === 'running') {
        if (shown === null || shown === 'pod_pending') show('pod_running')
        if (health?.phase != null) show(health.phase)
        const endpoint = endpointOf(cluster, name, verdict, port)
        if (endpoint !== null) boot.begin(endpoint)
        if (endpoint !== null && health !== null && hasBooted(spec.purpose, health.state))
          return { endpoint, podUid: verdict.podUid }
      }
      const restMs = deadline - performance.now()
      if (restMs <= 0) await fail(context, name, { code: 'start_timeout', message: timeoutText(verdict, trouble) })
      await bell.next(Math.max(1, Math.min(restMs, leftMs ?? restMs, sight.waitMs())))
    }
  } finally {
    ended.abort()
  }
}

const failureOf = ({ code, message }: { code: FailureCode; message: string }) => ({ code, message })

const timeoutText = (verdict: Verdict, trouble: string | null): string => {
  if (verdict.is !== 'running') return 'The pod did not start in time.'
  return `The pod runs and the sandbox is not ready${trouble === null ? '.' : `; its supervisor cannot be reached: ${trouble}`}`
}
