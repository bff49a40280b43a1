import { execFile } from 'node:child_process'
import { statSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from '@jest/globals'
import { parse } from 'yaml'
import { type Config, loadConfig } from '../../config/config.ts'
import { settingDefaults } from '../../config/env.ts'
import { composeOf, environmentIn, GIVEN, interpolate, read, root, type Service, settingsIn } from './compose.ts'
import { imageContent, instructionsOf, isIgnored, neededBy, trackedFiles } from './image.ts'

const run = promisify(execFile)

const compose = composeOf('docker-compose.yml')
const { services } = compose
const service = (name: string): Service => {
  const found = services[name]
  if (found === undefined) throw new Error(`no service ${name}`)
  return found
}
const packageJson: { dependencies: Record<string, string>; version: string } = JSON.parse(read('package.json'))
const supervisor: { dependencies: Record<string, string> } = JSON.parse(read('supervisor/package.json'))
const environmentOf = (name: string, given = GIVEN) => environmentIn(compose, name, given)
const settingsOf = (name: string, given = GIVEN) => settingsIn(compose, name, given)

const OURS = ['migrate', 'api', 'worker']
const configOf = (name: string): Config => loadConfig(settingsOf(name))

describe('docker-compose.yml', () => {
  test('has the whole platform', () => {
    expect(Object.keys(services).toSorted()).toEqual(
      [...OURS, 'postgres', 'temporal', 'temporal-schema', 'temporal-ui'].toSorted(),
    )
  })

  test('every image has a pinned tag, ours is the version of package.json', () => {
    for (const [name, { image }] of Object.entries(services))
      expect([name, image]).toEqual([name, expect.stringMatching(/^[\w./-]+:\d+\.\d+(\.\d+)?(-\w+)?$/)])
    for (const name of OURS) expect(service(name)).toMatchObject({ image: `lap:${packageJson.version}`, build: '.' })
  })

  test.each(OURS)('%s starts with settings that are right and known', (name) => {
    expect(() => configOf(name)).not.toThrow()
    const known = new Set(settingDefaults().map((setting) => setting.name))
    expect(Object.keys(settingsOf(name)).filter((key) => !known.has(key))).toEqual([])
  })

  test.each(Object.keys(GIVEN))('nothing starts without %s, and the message says what it is', (key) => {
    const { [key]: _, ...rest } = GIVEN
    expect(() => environmentOf('api', rest)).toThrow(/\w+: .{15,}/)
  })

  test('no secret is in the file: each comes from the environment, without a default', () => {
    for (const [name, { environment }] of Object.entries(services))
      for (const [key, value] of Object.entries(environment ?? {}))
        if (/(KEY|PASSWORD|PWD|SECRET|TOKEN)$/.test(key))
          expect([name, key, value]).toEqual([name, key, expect.stringMatching(/^\$\{\w+:\?[^}]+\}$/)])
    expect(service('api').environment?.['DATABASE_URL']).toMatch(/^postgresql:\/\/lap:\$\{POSTGRES_PASSWORD:\?[^}]+\}@/)
  })

  test('services find each other by name and port', () => {
    const settings = configOf('api')
    const database = new URL(settings.databaseUrl)
    expect([database.hostname, database.port]).toEqual(['postgres', '5432'])
    expect(environmentOf('postgres')).toEqual({
      POSTGRES_USER: database.username,
      POSTGRES_PASSWORD: database.password,
      POSTGRES_DB: database.pathname.slice(1),
    })
    expect(environmentOf('temporal')).toMatchObject({ POSTGRES_SEEDS: 'postgres', POSTGRES_USER: database.username })
    expect(environmentOf('temporal-schema')).toMatchObject({ SQL_HOST: 'postgres', SQL_USER: database.username })
    expect(settings.temporal.address).toBe('temporal:7233')
    expect(environmentOf('temporal-ui')).toEqual({
      TEMPORAL_ADDRESS: settings.temporal.address,
      TEMPORAL_DEFAULT_NAMESPACE: settings.temporal.namespace,
    })
  })

  test('API, worker and migrations share every setting but their ports', () => {
    const { PORT: _port, METRICS_PORT: _metrics, ...api } = environmentOf('api')
    const { WORKER_METRICS_PORT: _workerMetrics, ...worker } = environmentOf('worker')
    expect(api).toEqual(worker)
    expect(api).toEqual(environmentOf('migrate'))
  })

  test('sandboxes run beside the worker and are reached by its name', () => {
    expect(configOf('api').sandbox).toMatchObject({ driver: 'local', localHost: 'worker', localListen: '0.0.0.0' })
    expect(services).toHaveProperty('worker')
    // Somebody must reap what a sandbox leaves.
    expect(service('worker').init).toBe(true)
  })

  test('each waits for services that exist, in a way that they can fulfil', () => {
    for (const [name, { depends_on: needs }] of Object.entries(services))
      for (const [other, { condition }] of Object.entries(needs ?? {})) {
        expect([name, Object.keys(services)]).toEqual([name, expect.arrayContaining([other])])
        if (condition === 'service_healthy') expect(service(other).healthcheck).toBeDefined()
        else expect(condition).toBe('service_completed_successfully')
      }
    const ends = Object.values(services).flatMap(({ depends_on: needs }) =>
      Object.entries(needs ?? {}).flatMap(([other, { condition }]) =>
        condition === 'service_completed_successfully' ? [other] : [],
      ),
    )
    expect([...new Set(ends)].toSorted()).toEqual(['migrate', 'temporal-schema'])
  })

  test('commands and mounted files exist', async () => {
    const files = trackedFiles(root)
    for (const name of OURS) {
      const [program, script] = service(name).command ?? []
      expect([name, program]).toEqual([name, 'node'])
      expect(files).toContain(script)
    }
    for (const { volumes = [] } of Object.values(services))
      for (const volume of volumes) {
        const [source = ''] = volume.split(':')
        if (source.startsWith('./')) expect(files).toContain(source.slice(2))
        else expect(compose.volumes).toHaveProperty(source)
      }
    const [, script] = service('temporal-schema').entrypoint ?? []
    const mount = service('temporal-schema').volumes?.find((volume) => volume.split(':')[1] === script) ?? ''
    await expect(run('sh', ['-n', path.join(root, mount.split(':')[0] ?? '')])).resolves.toBeDefined()
    const { DYNAMIC_CONFIG_FILE_PATH: target } = environmentOf('temporal')
    expect(service('temporal').volumes?.map((volume) => volume.split(':')[1])).toContain(target)
    expect(parse(read('deploy/temporal/dynamic-config.yaml'))).toBeInstanceOf(Object)
  })

  test('only the API and the Temporal UI can be reached from the machine, and from there only unless told otherwise', () => {
    const published = Object.entries(services).flatMap(([name, { ports = [] }]) =>
      ports.map((port) => [name, interpolate(port, GIVEN)]),
    )
    expect(published).toEqual([
      ['temporal-ui', '127.0.0.1:8080:8080'],
      ['api', `127.0.0.1:3000:${configOf('api').port}`],
    ])
    expect(interpolate(service('api').ports?.[0] ?? '', { ...GIVEN, PORT: '80', API_LISTEN: '0.0.0.0' })).toBe(
      '0.0.0.0:80:3000',
    )
    expect(loadConfig(settingsOf('api', { ...GIVEN, PORT: '8000' })).baseUrl).toBe('http://localhost:8000')
    expect(configOf('api').temporal.uiUrl).toBe('http://localhost:8080')
  })

  test.each(['api', 'worker'])(
    'the health check of %s asks its port, and passes and fails with the answer',
    async (name) => {
      const [kind, program, flag, script = ''] = service(name).healthcheck?.test ?? []
      expect([kind, program, flag]).toEqual(['CMD', 'node', '-e'])
      const url = new URL(/fetch\('([^']+)'\)/.exec(script)?.[1] ?? '')
      const config = configOf(name)
      expect(url.port).toBe(String(name === 'api' ? config.port : config.workerMetricsPort))
      let status = 200
      const asked: (string | undefined)[] = []
      const server = createServer((request, response) => {
        asked.push(request.url)
        response.writeHead(status).end()
      })
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      const here = script.replace(url.host, `127.0.0.1:${(server.address() as AddressInfo).port}`)
      const check = (): Promise<unknown> => run(process.execPath, ['-e', here])
      try {
        await expect(check()).resolves.toBeDefined()
        status = 503
        await expect(check()).rejects.toMatchObject({ code: 1 })
        expect(asked).toEqual([url.pathname, url.pathname])
      } finally {
        server.closeAllConnections()
        server.close()
      }
      await expect(check()).rejects.toMatchObject({ code: 1 })
    },
  )
})

describe('Dockerfile', () => {
  const dockerfile = read('Dockerfile')
  const instructions = instructionsOf(dockerfile)
  const files = trackedFiles(root)
  const ignore = read('.dockerignore').split('\n')

  test('builds on the Node version of package.json, pinned', () => {
    const args = Object.fromEntries(
      instructions.filter(({ keyword }) => keyword === 'ARG').map(({ rest }) => rest.split('=', 2) as [string, string]),
    )
    expect(args['NODE_IMAGE']).toBe(`node:${packageJson.dependencies['node']}-bookworm-slim`)
    const stages = new Set<string>()
    for (const { rest } of instructions.filter(({ keyword }) => keyword === 'FROM')) {
      const [from = '', as, name = ''] = rest.split(/\s+/)
      expect(from === '${NODE_IMAGE}' || stages.has(from)).toBe(true)
      if (as === 'AS') stages.add(name)
    }
  })

  test('copies only what the repository has and the builder is sent', () => {
    const stages = instructions.flatMap(({ keyword, rest }) =>
      keyword === 'FROM' && rest.includes(' AS ') ? [rest.split(' AS ')[1]] : [],
    )
    for (const { keyword, rest } of instructions) {
      if (keyword !== 'COPY') continue
      const words = rest.split(/\s+/)
      const from = words.find((word) => word.startsWith('--from='))
      if (from !== undefined) {
        expect(stages).toContain(from.slice('--from='.length))
        continue
      }
      for (const source of words.slice(0, -1)) {
        const copied = files.filter((file) => file === source || file.startsWith(`${source}/`))
        expect([source, copied.some((file) => !isIgnored(file, ignore))]).toEqual([source, true])
      }
    }
  })

  test('its commands are sound shell', async () => {
    for (const { keyword, rest } of instructions)
      if (keyword === 'RUN') await expect(run('sh', ['-n', '-c', rest])).resolves.toBeDefined()
  })

  test('the Temporal SDK brings itself for the machines that the image is made for', () => {
    const releases = path.join(root, 'node_modules/@temporalio/core-bridge/releases')
    for (const arch of ['x86_64', 'aarch64'])
      expect(statSync(path.join(releases, `${arch}-unknown-linux-gnu`)).isDirectory()).toBe(true)
  })

  const entryPoints = ['bin/api.ts', 'bin/worker.ts', 'bin/migrate.ts', 'bin/supervisor.ts']
  test.each([...entryPoints, 'workflows/index.ts', 'harness/opencode/manifest.ts'])(
    'the image has everything that %s needs',
    (entry) => {
      const content = imageContent(dockerfile, files, ignore)
      const needed = neededBy(root, [entry])
      expect(needed.files.filter((file) => !content.includes(file))).toEqual([])
      expect(
        needed.packages.filter((name) => !(name in packageJson.dependencies || name in supervisor.dependencies)),
      ).toEqual([])
    },
  )

  test('has no tests, no development tools and nothing of this machine', () => {
    const content = imageContent(dockerfile, files, ignore)
    expect(content.filter((file) => /\.test\.ts$|^(test|bench|tools|docs|demo)\/|^\.env/.test(file))).toEqual([])
  })

  test('serves as an unprivileged user, with settings of production', () => {
    expect(instructions.findLast(({ keyword }) => keyword === 'USER')?.rest).toBe('node')
    expect(configOf('api')).toMatchObject({ nodeEnv: 'production', host: '0.0.0.0' })
    const command: string[] = JSON.parse(instructions.findLast(({ keyword }) => keyword === 'CMD')?.rest ?? '[]')
    expect(command).toEqual(['node', 'bin/api.ts'])
  })
})
