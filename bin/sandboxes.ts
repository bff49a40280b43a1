import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Config } from '../config/config.ts'
import { findHarnesses } from '../harness/registry.ts'
import { createKubeClient } from '../kubernetes/client.ts'
import type { KubeClient } from '../kubernetes/client.ts'
import type { Access } from '../kubernetes/cluster.ts'
import { createKubernetesDriver } from '../kubernetes/driver.ts'
import { neighbourProblems } from '../kubernetes/neighbours.ts'
import type { NeighbourOptions } from '../kubernetes/neighbours.ts'
import { preflight } from '../kubernetes/preflight.ts'
import type { Preflight } from '../kubernetes/preflight.ts'
import { isReady } from '../kubernetes/write.ts'
import { createLocalDriver } from '../local/driver.ts'
import { createHarnessPackages } from '../local/harness-packages.ts'
import type { SandboxDriver } from '../sandbox/driver.ts'
import type { Problem } from '../sandbox/inspector.ts'
import type { Logger } from '../telemetry/log.ts'

/** Every pod has one, unless told otherwise. */
const serviceAccountToken = '/var/run/secrets/kubernetes.io/serviceaccount/token'
/** How often a cluster that lacks something is looked at again, and one that does not. */
const checkAgainMs = 15_000
const checkCalmMs = 300_000

/** Where sandboxes live. */
export type Sandboxes = AsyncDisposable & { driver: SandboxDriver }

/** The library that reads kubeconfigs takes a third of a second and 90 MB: it is loaded only where there is a cluster. */
export const connectCluster = async (): Promise<KubeClient> => {
  const { loadCredentials } = await import('../kubernetes/credentials.ts')
  return createKubeClient(loadCredentials())
}

export const accessOf = ({ access, nodeHost }: Config['k8s']): Access => {
  const by = access ?? (existsSync(serviceAccountToken) ? 'pod-ip' : 'nodeport')
  return by === 'pod-ip' ? { by } : { by, nodeHost }
}

const localSandboxes = async (config: Config, log: Logger): Promise<Sandboxes> => {
  const { localDir, localHost, localListen } = config.sandbox
  const harnesses = new Map((await findHarnesses(config.harness.path)).map(({ id, dir }) => [id, dir]))
  const driver = createLocalDriver({
    dir: localDir,
    host: localHost,
    listen: localListen,
    searchPath: process.env['PATH'] ?? '',
    harnessDir: (id) => harnesses.get(id),
    ensurePackages: createHarnessPackages((text) => log.info(text), process.env).ensure,
  })
  return { driver, [Symbol.asyncDispose]: async () => {} }
}

type Look = { client: KubeClient; config: Config; told: (problems: Problem[]) => void }

/** What is wrong is said once, and again when it is something else. */
const look = async ({ client, config, told }: Look): Promise<Preflight> => {
  const { api, namespace } = config.k8s
  const found = await preflight({ client, api, namespace, access: accessOf(config.k8s).by })
  told(found.problems)
  return found
}

/** A second apart. */
const startLooksMax = 20

/**
 * While the API server does not answer nothing is known, not even which watches are allowed. One that has just started refuses everybody until it has read its
 * roles: what is missing is missing if it was ready before. A cluster may keep from everybody whether it is: then it is missing if it is so for long enough.
 */
const answered = async (on: Look, signal: AbortSignal): Promise<Preflight> => {
  for (let looks = 1; ; looks++) {
    const ready = (await isReady(on.client)) || looks >= startLooksMax
    const found = await look(on)
    const missing = found.problems.length + found.warnings.length
    if (!found.unreachable && (missing === 0 || ready)) return found
    await sleep(found.unreachable ? checkAgainMs : 1_000, undefined, { signal })
  }
}

/** Tells what of it was not so when it was asked before; not being able to look is the concern of whoever needs the cluster. */
const tellOfNeighbours = (options: NeighbourOptions, log: Logger): (() => Promise<void>) => {
  let told: string[] = []
  return async () => {
    const problems = await neighbourProblems(options).catch(() => null)
    if (problems === null) return
    for (const { what, ...more } of problems)
      if (!told.includes(what)) log.error({ event: 'cluster_neighbour', ...more }, what)
    told = problems.map(({ what }) => what)
  }
}

const kubernetesSandboxes = async (config: Config, on: SandboxesOptions): Promise<Sandboxes> => {
  const { log, onProblems } = on
  const { unschedulableMs, ...common } = config.k8s
  const client = await connectCluster()
  let problems: Problem[] = []
  const told = (now: Problem[]): void => {
    if (JSON.stringify(now) === JSON.stringify(problems)) return
    if (now.length === 0) log.info('the cluster has all that sandboxes need')
    for (const { what, ...more } of now) log.error({ event: 'cluster_problem', ...more }, what)
    problems = now
    onProblems(now)
  }
  const ended = new AbortController()
  const signal = AbortSignal.any([on.signal, ended.signal])
  const at: Look = { client, config, told }
  const first = await answered(at, signal)
  for (const { what, ...more } of first.warnings) log.warn({ event: 'cluster_warning', ...more }, what)
  const settings = { ...common, installation: await on.installation() }
  const tell = tellOfNeighbours({ client, settings }, log)
  await tell()
  const driver = createKubernetesDriver({
    client,
    settings,
    access: accessOf(config.k8s),
    mayReadNodes: first.mayReadNodes,
    unschedulableMs,
    onTrouble: (reason) => log.warn({ reason }, 'the cluster'),
  })
  const goOn = async (): Promise<void> => {
    for (;;) {
      await sleep(problems.length > 0 ? checkAgainMs : checkCalmMs, undefined, { signal, ref: false })
      const { mayReadNodes } = await look(at)
      if (mayReadNodes) driver.cluster.readNodes()
      await tell()
    }
  }
  void goOn().catch(() => {})
  return {
    driver,
    async [Symbol.asyncDispose]() {
      ended.abort()
      await driver[Symbol.asyncDispose]()
    },
  }
}

export type SandboxesOptions = {
  log: Logger
  signal: AbortSignal
  /** Told of what is missing, also while this waits for the API server to answer. */
  onProblems: (problems: Problem[]) => void
  /** The id of this installation, once it is known. */
  installation: () => Promise<string>
}

/** The driver of `SANDBOX_DRIVER`. Waits for the cluster's API server; a cluster that lacks something is reported, and looked at again. */
export const openSandboxes = (config: Config, options: SandboxesOptions): Promise<Sandboxes> =>
  config.sandbox.driver === 'local' ? localSandboxes(config, options.log) : kubernetesSandboxes(config, options)
