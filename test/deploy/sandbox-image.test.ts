import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from '@jest/globals'
import { settingDefaults } from '../../config/env.ts'
import { objectOf, type PodSettings } from '../../kubernetes/manifest.ts'
import type { SandboxSpec } from '../../sandbox/driver.ts'
import { takePodSettings } from '../../supervisor/pod.ts'
import { imageContent, instructionsOf, isIgnored, neededBy, trackedFiles } from './image.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const read = (file: string): string => readFileSync(path.join(root, file), 'utf8')
const run = promisify(execFile)

const dockerfile = read('harness/opencode/Dockerfile')
const instructions = instructionsOf(dockerfile)
const files = trackedFiles(root)
const ignore = read('.dockerignore').split('\n')
const content = imageContent(dockerfile, files, ignore)
const packageJson: { dependencies: Record<string, string> } = JSON.parse(read('package.json'))
/** What is installed in the image, and where. */
const INSTALLED = { opencode: 'harness/opencode', supervisor: 'supervisor' }
const installed = Object.values(INSTALLED).flatMap((folder) =>
  Object.keys((JSON.parse(read(`${folder}/package.json`)) as { dependencies: Record<string, string> }).dependencies),
)

const stages = instructions.flatMap(({ keyword, rest }, at) =>
  keyword === 'FROM' ? [{ from: rest.split(' ')[0], name: rest.split(' AS ')[1], at }] : [],
)
const stage = (name: string | undefined) => {
  const index = stages.findIndex((one) => one.name === name)
  return instructions.slice(stages[index]?.at, stages[index + 1]?.at)
}
const last = stage(undefined)
const restOf = (keyword: string): string => last.findLast((one) => one.keyword === keyword)?.rest ?? ''
const entrypoint: string[] = JSON.parse(restOf('ENTRYPOINT'))
const imageEnv = Object.fromEntries(
  restOf('ENV')
    .split(/\s+/)
    .map((pair) => pair.split('=', 2) as [string, string]),
)

type Container = {
  env: { name: string; value: string }[]
  ports: { containerPort: number }[]
  volumeMounts: { mountPath: string }[]
}
type PodSpec = { securityContext: Record<string, number>; containers: Container[] }

/** The pod that is made of it. */
const podOf = (): { spec: PodSpec; container: Container } => {
  const spec: SandboxSpec = {
    sandboxId: 'the-sandbox',
    name: 'lap-the-sandbox',
    agentId: 'agent',
    templateHash: 'hash',
    purpose: 'session',
    harnessId: 'opencode',
    image: 'image',
    repoUrl: '',
    branch: 'main',
    resources: null,
    allowOut: [],
    denyOut: [],
    setupCommand: null,
    env: {},
    token: 'token',
  }
  const settings = {
    api: 'pod',
    namespace: 'lap',
    instance: 'lap',
    installation: 'this-one',
    imagePullPolicy: 'IfNotPresent',
    imagePullSecrets: [],
    resources: { requests: {}, limits: {} },
    workSize: '1Gi',
    priorityClassName: null,
    runtimeClassName: null,
    serviceAccountName: null,
    nodeSelector: {},
    tolerations: [],
    supervisorPort: Number(settingDefaults().find(({ name }) => name === 'K8S_SUPERVISOR_PORT')?.default),
    egress: { blocked: [], allowed: [], dnsPodLabels: {} },
  } satisfies PodSettings
  const { spec: made } = objectOf(spec, settings) as unknown as { spec: PodSpec }
  return { spec: made, container: made.containers[0]! }
}

test('it builds on the Node version of package.json, pinned, as the platform’s own image does', () => {
  const node = instructions.find(({ keyword }) => keyword === 'ARG')?.rest
  expect(node).toBe(`NODE_IMAGE=node:${packageJson.dependencies['node']}-bookworm-slim`)
  expect(stages.map(({ from, name }) => [from, name])).toEqual([
    ...Object.keys(INSTALLED).map((name) => ['${NODE_IMAGE}', name]),
    ['${NODE_IMAGE}', undefined],
  ])
})

test('it copies only what the repository has and the builder is sent', () => {
  for (const { keyword, rest } of instructions) {
    if (keyword !== 'COPY' || rest.startsWith('--from=')) continue
    for (const source of rest.split(/\s+/).slice(0, -1)) {
      const copied = files.filter((file) => file === source || file.startsWith(`${source}/`))
      expect([source, copied.some((file) => !isIgnored(file, ignore))]).toEqual([source, true])
    }
  }
})

test.each(['bin/supervisor.ts', 'harness/opencode/manifest.ts'])('it has everything that %s needs', (entry) => {
  const needed = neededBy(root, [entry])
  expect(needed.files.filter((file) => !content.includes(file))).toEqual([])
  expect(needed.packages.filter((name) => !installed.includes(name))).toEqual([])
})

test.each([
  ['claude-agent-sdk', 'claude-agent-sdk'],
  ['claude-code', 'claude-code'],
  ['codex', 'codex'],
  ['codex', 'codex-terminal'],
  ['qwen-code', 'qwen-code'],
])('the image of %s has everything that the harness %s needs', (image, harness) => {
  const there = imageContent(read(`harness/${image}/Dockerfile`), files, ignore)
  const needed = neededBy(root, ['bin/supervisor.ts', `harness/${harness}/manifest.ts`])
  expect(needed.files.filter((file) => !there.includes(file))).toEqual([])
})

test('it has nothing else: no platform, no tests, no tools', () => {
  const folders = new Set(content.map((file) => file.split('/')[0] ?? ''))
  expect([...folders].toSorted()).toEqual(['bin', 'domain', 'harness', 'package.json', 'supervisor'])
  expect(content.filter((file) => file.endsWith('.test.ts'))).toEqual([])
  expect(content.filter((file) => file.startsWith('bin/'))).toEqual(['bin/supervisor.ts'])
})

test.each(Object.entries(INSTALLED))(
  'what %s needs is installed by its lockfile, where its folder is',
  (name, folder) => {
    const packages = stage(name)
    const workdir = packages.find(({ keyword }) => keyword === 'WORKDIR')?.rest
    const copied = packages.find(({ keyword }) => keyword === 'COPY')?.rest.split(/\s+/) ?? []
    for (const file of ['package.json', 'package-lock.json', '.npmrc']) expect(copied).toContain(`${folder}/${file}`)
    const commands = packages.filter(({ keyword }) => keyword === 'RUN').map(({ rest }) => rest)
    expect(commands.filter((command) => /\bnpm\b/.test(command))).toEqual([expect.stringMatching(/^npm ci --omit=dev/)])
    const home = last.find(({ keyword }) => keyword === 'WORKDIR')?.rest ?? ''
    expect(workdir).toBe(path.posix.join(home, folder))
    expect(last.map(({ rest }) => rest)).toContain(`--from=${name} ${workdir}/node_modules ${folder}/node_modules`)
  },
)

test('its commands are sound shell', async () => {
  for (const { keyword, rest } of instructions)
    if (keyword === 'RUN') await expect(run('sh', ['-n', '-c', rest])).resolves.toBeDefined()
})

test('an init of its own runs the supervisor, compiled beforehand by a Node with the same flags', () => {
  const [init, dashes, node = '', ...rest] = entrypoint
  expect([init, dashes, node]).toEqual(['/usr/bin/tini', '--', 'node'])
  const installed = last.find(({ keyword, rest: command }) => keyword === 'RUN' && command.includes('apt-get'))?.rest
  for (const name of ['tini', 'git', 'ca-certificates', 'ripgrep', 'procps'])
    expect(installed?.split(/\s+/)).toContain(name)
  const script = rest.pop() ?? ''
  expect(content).toContain(path.posix.relative('/app', script))
  const compiled = last.findLast(({ keyword }) => keyword === 'RUN')?.rest ?? ''
  const flags = [...compiled.matchAll(/node ((?:--max-\S+ )+)/g)].map((match) => match[1]?.trim())
  expect(flags).toEqual([rest.join(' '), rest.join(' ')])
})

test('the pod that is made of it runs as the image’s user, writes in its one directory, and has all that the supervisor asks for', () => {
  const { spec, container } = podOf()
  const { runAsUser, runAsGroup, fsGroup } = spec.securityContext
  expect(restOf('USER')).toBe(`${runAsUser}:${runAsGroup}`)
  expect(fsGroup).toBe(runAsGroup)
  expect(container.volumeMounts.map(({ mountPath }) => mountPath)).toEqual([imageEnv['LAP_DIR']])
  expect(imageEnv['HOME']).toBe(path.posix.join(imageEnv['LAP_DIR'] ?? '', 'home'))
  const given = Object.fromEntries(container.env.map(({ name, value }) => [name, value]))
  expect(takePodSettings({ ...imageEnv, ...given })).toMatchObject({
    sandboxId: 'the-sandbox',
    listen: { host: '0.0.0.0', port: Number(restOf('EXPOSE')) },
    dir: imageEnv['LAP_DIR'],
  })
  expect(container.ports.map(({ containerPort }) => containerPort)).toEqual([Number(restOf('EXPOSE'))])
})
