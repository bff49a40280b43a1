import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { parseAllDocuments } from 'yaml'
import { buildHelm } from '../../tools/cluster/binaries.ts'

export const CHART = fileURLToPath(new URL('../../deploy/chart', import.meta.url))

export type Values = { [key: string]: unknown }

/** An object as the chart renders it, of whatever kind. */
export type Rendered = {
  apiVersion: string
  kind: string
  metadata: {
    name: string
    namespace?: string
    labels?: Record<string, string>
    annotations?: Record<string, string>
  }
  data?: Record<string, string>
  spec?: Record<string, unknown>
  rules?: { apiGroups: string[]; resources: string[]; verbs: string[] }[]
}

/** The values without which the chart cannot be rendered. */
export const LEAST: Values = {
  settings: { LITELLM_API_BASE: 'https://litellm.example.com' },
  existingSecret: 'lap-keys',
}

/** What Helm refused, in its own words. */
class HelmError extends Error {
  override name = 'HelmError'
}

export type Helm = Disposable & {
  /** @returns what it printed, warnings included. @throws HelmError */
  run(args: string[], values?: Values): Promise<string>
  template(values: Values, options?: { release?: string; namespace?: string }): Promise<Rendered[]>
}

/** The real Helm, with nothing of this user's own configuration. @param kubeconfig of the cluster that it installs into */
export const openHelm = async (kubeconfig?: string): Promise<Helm> => {
  const file = await buildHelm((line) => console.info(line))
  const home = mkdtempSync(path.join(tmpdir(), 'lap-helm-'))
  const env = {
    PATH: process.env['PATH'],
    HOME: home,
    HELM_CACHE_HOME: home,
    HELM_CONFIG_HOME: home,
    HELM_DATA_HOME: home,
    // An address that nobody listens at: without a cluster none is asked.
    ...(kubeconfig === undefined ? { HELM_KUBEAPISERVER: 'https://127.0.0.1:1' } : { KUBECONFIG: kubeconfig }),
  }
  const start = async (args: string[], values?: Values): Promise<{ out: string; errors: string }> => {
    const child = spawn(file, [...args, ...(values === undefined ? [] : ['--values', '-'])], { env, cwd: home })
    child.stdin.end(values === undefined ? '' : JSON.stringify(values))
    const ended = new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
    const [out, errors, code] = await Promise.all([text(child.stdout), text(child.stderr), ended])
    if (code !== 0) throw new HelmError(`${errors}${out}`)
    return { out, errors }
  }
  return {
    run: async (args, values) => {
      const { out, errors } = await start(args, values)
      return out + errors
    },
    template: async (values, { release = 'lap', namespace = 'platform' } = {}) => {
      const { out } = await start(['template', release, CHART, '--namespace', namespace], values)
      return parseAllDocuments(out).flatMap((document) => {
        if (document.errors.length > 0) throw document.errors[0]
        const object = document.toJS() as Rendered | null
        return object === null ? [] : [object]
      })
    },
    [Symbol.dispose]: () => rmSync(home, { recursive: true, force: true }),
  }
}

export const objectsOf = (objects: Rendered[], kind: string): Rendered[] =>
  objects.filter((object) => object.kind === kind)

/** The one object of that kind whose name ends so. */
export const objectOf = (objects: Rendered[], kind: string, ending = ''): Rendered => {
  const [found, ...others] = objectsOf(objects, kind).filter(({ metadata }) => metadata.name.endsWith(ending))
  if (found === undefined || others.length > 0)
    throw new Error(`${others.length + (found === undefined ? 0 : 1)} objects of kind ${kind} end with "${ending}"`)
  return found
}

/** The settings with which a process of the release starts. */
export const settingsOf = (objects: Rendered[]): Record<string, string> => {
  const secret = objectsOf(objects, 'Secret').find(({ metadata }) => metadata.annotations === undefined)
  const config = objectsOf(objects, 'ConfigMap').find(({ metadata }) => metadata.annotations === undefined)
  const opened = Object.entries(secret?.data ?? {}).map(([name, value]) => [
    name,
    Buffer.from(value, 'base64').toString(),
  ])
  return { ...config?.data, ...(Object.fromEntries(opened) as Record<string, string>) }
}
