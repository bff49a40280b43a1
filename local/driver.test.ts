import { execFileSync, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import { sandboxName } from '../domain/names.ts'
import type { Health } from '../domain/supervisor-protocol.ts'
import type { SandboxFailedError, SandboxSpec } from '../sandbox/driver.ts'
import { createLocalDriver, type LocalDriver } from './driver.ts'
import { isAlive, processesOf, startTimeOf } from './processes.ts'

const root = path.join(import.meta.dirname, '..')
const harnesses: Record<string, string> = { light: path.join(root, 'bench/harness/light') }
const searchPath = process.env['PATH'] ?? ''

const world = mkdtempSync(path.join(tmpdir(), 'lap-local-'))
const dir = path.join(world, 'sandboxes')
const repo = path.join(world, 'repo')
const newDriver = (): LocalDriver =>
  createLocalDriver({ dir, host: 'localhost', listen: '127.0.0.1', searchPath, harnessDir: (id) => harnesses[id] })
const driver = newDriver()

beforeAll(async () => {
  await mkdir(repo)
  writeFileSync(path.join(repo, 'README.md'), 'hello\n')
  const git = (...args: string[]) => execFileSync('git', ['-C', repo, ...args], { stdio: 'ignore' })
  git('init', '--initial-branch=main')
  git('add', '.')
  git('-c', 'user.name=t', '-c', 'user.email=t@example.com', 'commit', '-m', 'first')
})
afterEach(() => driver.removeAll())
afterAll(() => rmSync(world, { recursive: true, force: true }))

const specOf = (more: Partial<SandboxSpec> = {}): SandboxSpec => {
  const sandboxId = randomUUID()
  return {
    sandboxId,
    name: sandboxName(sandboxId),
    agentId: randomUUID(),
    templateHash: 'hash',
    purpose: 'session',
    harnessId: 'light',
    image: 'light',
    repoUrl: `file://${repo}`,
    branch: 'main',
    resources: null,
    allowOut: [],
    denyOut: [],
    setupCommand: null,
    env: {},
    token: `token-${randomUUID()}`,
    ...more,
  }
}
const wait = (more: object = {}) => ({ deadlineMs: 20_000, signal: new AbortController().signal, ...more })
const start = async (more: Partial<SandboxSpec> = {}): Promise<SandboxSpec & { endpoint: string }> => {
  const spec = specOf(more)
  await driver.create(spec)
  return { ...spec, ...(await driver.ready(spec.name, wait())) }
}
const failureOf = async (name: string, more: object = {}): Promise<SandboxFailedError['failure']> => {
  try {
    await driver.ready(name, wait(more))
  } catch (error) {
    if (Error.isError(error) && 'failure' in error) return (error as SandboxFailedError).failure
    throw error
  }
  throw new Error('the sandbox became ready')
}
const until = async (what: () => boolean | Promise<boolean>, limitMs = 5_000): Promise<void> => {
  for (const begin = performance.now(); !(await what()); await sleep(20))
    if (performance.now() - begin > limitMs) throw new Error(`not so after ${limitMs} ms: ${what.toString()}`)
}
const pidOf = async (name: string): Promise<number> => Number((await driver.inspect(name)).details?.['pid'])
const left = (spec: SandboxSpec) => processesOf(`LAP_SANDBOX_ID=${spec.sandboxId}`, null)
const pidIn = (name: string, file: string): number =>
  Number(readFileSync(path.join(dir, name, 'workspace', file), 'utf8'))

const inOtherProcess = (code: string): Promise<string> => {
  const module = pathToFileURL(path.join(import.meta.dirname, 'driver.ts')).href
  const options = { dir, host: '127.0.0.1', listen: '127.0.0.1', searchPath }
  const program = `import { createLocalDriver } from ${JSON.stringify(module)}
    const driver = createLocalDriver({ ...${JSON.stringify(options)}, harnessDir: () => ${JSON.stringify(harnesses['light'])} })
    ${code}`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  return text(child.stdout)
}

const watchWith = (which: LocalDriver): { lost: string[]; stop: () => void } => {
  const lost: string[] = []
  const abort = new AbortController()
  which.watchLost((name) => lost.push(name), abort.signal)
  return { lost, stop: () => abort.abort() }
}

describe('a sandbox', () => {
  test('starts, clones, answers under its advertised host, and tells its phases', async () => {
    const spec = specOf()
    await driver.create(spec)
    const phases: string[] = []
    const { endpoint } = await driver.ready(spec.name, wait({ onProgress: (phase: string) => phases.push(phase) }))
    expect(endpoint).toMatch(/^http:\/\/localhost:\d+$/)
    const response = await fetch(`${endpoint}/healthz`, { headers: { authorization: `Bearer ${spec.token}` } })
    const health = (await response.json()) as Health
    expect(health).toMatchObject({ sandbox_id: spec.sandboxId, state: 'booted', template_hash: 'hash' })
    expect(readFileSync(path.join(dir, spec.name, 'workspace/README.md'), 'utf8')).toBe('hello\n')
    expect(phases[0]).toBe('pod_running')
    expect(new Set(phases).size).toBe(phases.length)
  })

  test('for the pool is ready when it is warm', async () => {
    const spec = await start({ purpose: 'pool' })
    expect((await driver.inspect(spec.name)).state).toBe('warm')
  })

  test('has an environment of its own, and nothing secret of it is stored or shown in the process list', async () => {
    process.env['LAP_TEST_OF_OUTSIDE'] = 'outside'
    const spec = await start({ env: { PLAIN: 'value-of-plain' }, setupCommand: 'env > env.txt' })
    delete process.env['LAP_TEST_OF_OUTSIDE']
    const env = readFileSync(path.join(dir, spec.name, 'workspace/env.txt'), 'utf8').split('\n')
    expect(env).toContain('PLAIN=value-of-plain')
    expect(env).toContain(`HOME=${path.join(dir, spec.name, 'home')}`)
    expect(env.some((line) => line.includes('outside'))).toBe(false)
    const record = readFileSync(path.join(dir, spec.name, 'sandbox.json'), 'utf8')
    const pid = await pidOf(spec.name)
    const shown = readFileSync(`/proc/${pid}/cmdline`, 'utf8') + readFileSync(`/proc/${pid}/environ`, 'utf8')
    for (const secret of [spec.token, 'value-of-plain']) expect(record + shown).not.toContain(secret)
    expect(statSync(path.join(dir, spec.name)).mode & 0o077).toBe(0)
  })

  test('is listed with its agent, and can be looked into', async () => {
    const spec = await start()
    expect(await driver.list()).toEqual([
      {
        name: spec.name,
        sandboxId: spec.sandboxId,
        agentId: spec.agentId,
        alive: true,
        createdAt: expect.any(Date),
        isMarked: true,
        sessionId: null,
        ours: true,
      },
    ])
    expect(await driver.inspect(spec.name)).toMatchObject({
      exists: true,
      state: 'booted',
      details: { supervisor_state: 'booted' },
    })
    const lines = await driver.logs(spec.name, { tailLines: 100 })
    expect(await driver.logs(spec.name, { tailLines: 100, sinceSeconds: 60 })).toEqual(lines)
    expect(await driver.inspect('lap-none')).toEqual({ exists: false, alive: false })
    await expect(driver.logs('lap-none', { tailLines: 1 })).rejects.toMatchObject({ code: 'not_found' })
  })

  test('whose name leads out of the directory is refused', async () => {
    for (const name of ['../x', 'a/b', '.removed', '']) {
      await expect(driver.create(specOf({ name }))).rejects.toThrow('not a sandbox name')
      await expect(driver.remove(name)).rejects.toThrow('not a sandbox name')
    }
  })

  test('outlives the process that made it, and another process finds, lists and removes it', async () => {
    const spec = specOf()
    await inOtherProcess(`await driver.create(${JSON.stringify(spec)}); process.kill(process.pid, 'SIGKILL')`)
    const { endpoint } = await driver.ready(spec.name, wait())
    expect((await fetch(`${endpoint}/healthz`)).status).toBeLessThan(500)
    const listed = await inOtherProcess('console.log(JSON.stringify(await driver.list()))')
    expect(JSON.parse(listed)).toMatchObject([{ name: spec.name, alive: true }])
    await inOtherProcess(`await driver.remove(${JSON.stringify(spec.name)})`)
    expect(await left(spec)).toEqual([])
    expect(await driver.list()).toEqual([])
  })
})

describe('creating', () => {
  test('one sandbox many times at once, by several drivers, starts it once', async () => {
    const spec = specOf()
    const drivers = [driver, driver, newDriver(), newDriver()]
    await Promise.all(drivers.map((each) => each.create(spec)))
    await driver.create(spec)
    await driver.ready(spec.name, wait())
    const supervisors = (await left(spec)).filter(({ pid }) =>
      readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('bin/supervisor.ts'),
    )
    expect(supervisors).toHaveLength(1)
  })

  test('goes on where a creator died after making the directory', async () => {
    const spec = specOf()
    await mkdir(path.join(dir, spec.name), { recursive: true })
    expect(await driver.list()).toMatchObject([{ name: spec.name, sandboxId: spec.sandboxId, alive: false }])
    await Promise.all([driver.create(spec), driver.create(spec), newDriver().create(spec)])
    expect(await left(spec)).not.toEqual([])
    await driver.ready(spec.name, wait())
    expect(await driver.list()).toMatchObject([{ name: spec.name, alive: true }])
  })

  test('with an unknown harness fails and leaves nothing', async () => {
    await expect(driver.create(specOf({ harnessId: 'none' }))).rejects.toMatchObject({ code: 'invalid' })
    expect(await driver.list()).toEqual([])
  })
})

describe('a start that fails', () => {
  test('for its repository is clone_failed, with the words of git and the log', async () => {
    const spec = specOf({ repoUrl: `file://${world}/nothing-here` })
    await driver.create(spec)
    const { code, message, evidence } = await failureOf(spec.name)
    expect(code).toBe('clone_failed')
    expect(message).toContain('nothing-here')
    expect(evidence).toMatchObject({ exists: true, state: expect.any(String), startedAt: expect.any(String) })
    expect(evidence.logTail?.join('\n')).toContain('nothing-here')
    await until(async () => (await driver.inspect(spec.name)).exitCode === 1)
  })

  test('for its set-up command is setup_failed', async () => {
    const spec = specOf({ setupCommand: 'echo no luck; exit 3' })
    await driver.create(spec)
    expect(await failureOf(spec.name)).toMatchObject({
      code: 'setup_failed',
      message: expect.stringContaining('no luck'),
    })
  })

  test('because its supervisor was killed is harness_exited, within a second', async () => {
    const spec = specOf({ setupCommand: 'kill -9 $PPID; sleep 60' })
    await driver.create(spec)
    const { code, evidence } = await failureOf(spec.name)
    expect(code).toBe('harness_exited')
    expect(evidence).toMatchObject({ state: 'exited', signal: 'SIGKILL' })
  })

  test('for want of memory is oom_killed', async () => {
    const spec = specOf({
      setupCommand: 'echo "FATAL ERROR: JavaScript heap out of memory"; sleep 0.1; kill -ABRT $PPID; sleep 60',
    })
    await driver.create(spec)
    expect((await failureOf(spec.name)).code).toBe('oom_killed')
  })

  test('to end in time is start_timeout, with the phase it was in', async () => {
    const spec = specOf({ setupCommand: 'sleep 60' })
    await driver.create(spec)
    await until(async () => (await driver.inspect(spec.name)).details?.['phase'] === 'installing_deps')
    const begin = performance.now()
    const failure = await failureOf(spec.name, { deadlineMs: 300 })
    expect(failure).toMatchObject({ code: 'start_timeout', message: expect.stringContaining('installing_deps') })
    expect(performance.now() - begin).toBeLessThan(1_500)
  })

  test('because it is given up, rejects at once with the reason', async () => {
    const spec = specOf({ setupCommand: 'sleep 60' })
    await driver.create(spec)
    const abort = new AbortController()
    const ready = driver.ready(spec.name, wait({ signal: abort.signal }))
    abort.abort(new Error('given up'))
    await expect(ready).rejects.toThrow('given up')
  })

  test('because it was never made, or removed meanwhile, is sandbox_lost', async () => {
    expect(await failureOf('lap-none')).toMatchObject({ code: 'sandbox_lost', evidence: { exists: false } })
    const spec = specOf({ setupCommand: 'sleep 60' })
    await driver.create(spec)
    const failure = failureOf(spec.name)
    await driver.remove(spec.name)
    expect((await failure).code).toMatch(/sandbox_lost|harness_exited/)
  })
})

describe('removing', () => {
  test('leaves no process and no directory, and may be repeated', async () => {
    const spec = await start()
    const pid = await pidOf(spec.name)
    await Promise.all([driver.remove(spec.name), driver.remove(spec.name), newDriver().remove(spec.name)])
    await driver.remove(spec.name)
    expect(startTimeOf(pid)).toBeNull()
    expect(await left(spec)).toEqual([])
    expect(existsSync(path.join(dir, spec.name))).toBe(false)
    expect(readdirSync(path.join(dir, '.removed'))).toEqual([])
  })

  test('ends tools that left the process group, cleared their environment, or take no SIGTERM', async () => {
    const spec = await start({
      setupCommand: `
        setsid sh -c 'echo $$ > setsid.pid; exec sleep 300' > /dev/null 2>&1 &
        env -i /bin/sh -c 'echo $$ > clear.pid; exec sleep 300' > /dev/null 2>&1 &
        sh -c 'trap "" TERM; echo $$ > deaf.pid; while :; do sleep 1; done' > /dev/null 2>&1 &
        while [ ! -s setsid.pid ] || [ ! -s clear.pid ] || [ ! -s deaf.pid ]; do sleep 0.05; done`,
    })
    const pids = ['setsid.pid', 'clear.pid', 'deaf.pid'].map((file) => pidIn(spec.name, file))
    const processes = pids.map((pid) => ({ pid, startTime: startTimeOf(pid) ?? '' }))
    expect(processes.map(isAlive)).toEqual([true, true, true])
    await driver.remove(spec.name)
    expect(processes.map(isAlive)).toEqual([false, false, false])
  })

  test('ends the tools of a sandbox whose supervisor is dead already', async () => {
    const spec = await start({
      setupCommand: `sh -c 'echo $$ > tool.pid; exec sleep 300' > /dev/null 2>&1 &
        while [ ! -s tool.pid ]; do sleep 0.05; done`,
    })
    const pid = pidIn(spec.name, 'tool.pid')
    const tool = { pid, startTime: startTimeOf(pid) ?? '' }
    expect(isAlive(tool)).toBe(true)
    process.kill(await pidOf(spec.name), 'SIGKILL')
    await until(async () => (await driver.inspect(spec.name)).state === 'exited')
    await driver.remove(spec.name)
    expect(isAlive(tool)).toBe(false)
  })

  test('never ends a process that has got the pid of a dead supervisor', async () => {
    const spec = await start()
    process.kill(await pidOf(spec.name), 'SIGKILL')
    await until(async () => (await driver.inspect(spec.name)).state === 'exited')
    const stranger = spawn('sleep', ['300'], { detached: true, stdio: 'ignore' })
    const file = path.join(dir, spec.name, 'sandbox.json')
    const record = JSON.parse(readFileSync(file, 'utf8')) as { supervisor: { pid: number } }
    writeFileSync(file, JSON.stringify({ ...record, supervisor: { ...record.supervisor, pid: stranger.pid } }))
    expect(await driver.list()).toMatchObject([{ alive: false }])
    await driver.remove(spec.name)
    expect(startTimeOf(stranger.pid ?? 0)).not.toBeNull()
    stranger.kill('SIGKILL')
  })

  test('of all ends all', async () => {
    const specs = [await start(), await start(), specOf()]
    await driver.create(specs[2] ?? specOf())
    await newDriver().removeAll()
    expect(await driver.list()).toEqual([])
    expect((await Promise.all(specs.map(left))).flat()).toEqual([])
    expect(readdirSync(dir).filter((name) => name !== '.compile-cache')).toEqual([])
  })
})

describe('a lost sandbox', () => {
  test('is told of once to each watch: at once by its maker, within two seconds by others', async () => {
    const spec = await start()
    const own = watchWith(driver)
    const other = watchWith(newDriver())
    await sleep(50)
    const begin = performance.now()
    process.kill(await pidOf(spec.name), 'SIGKILL')
    await until(() => own.lost.length > 0)
    expect(performance.now() - begin).toBeLessThan(500)
    await until(() => other.lost.length > 0)
    expect(performance.now() - begin).toBeLessThan(2_000)
    await sleep(1_200)
    expect([own.lost, other.lost]).toEqual([[spec.name], [spec.name]])
    own.stop()
    other.stop()
  })

  test('that died while nobody watched is told of by the next watch', async () => {
    const spec = await start()
    process.kill(await pidOf(spec.name), 'SIGKILL')
    await until(async () => (await driver.inspect(spec.name)).state === 'exited')
    const { lost, stop } = watchWith(newDriver())
    await until(() => lost.length > 0)
    expect(lost).toEqual([spec.name])
    stop()
  })

  test('is not one that was removed on purpose, nor anything after the watch was ended', async () => {
    const [removed, killed] = [await start(), await start()]
    const own = watchWith(driver)
    const other = watchWith(newDriver())
    await sleep(50)
    await driver.remove(removed.name)
    await sleep(1_200)
    own.stop()
    other.stop()
    process.kill(await pidOf(killed.name), 'SIGKILL')
    await sleep(1_200)
    expect([own.lost, other.lost]).toEqual([[], []])
  })
})
