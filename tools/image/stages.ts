import { chmod, chown, cp, lchown, lstat, mkdir, mkdtemp, readdir, readFile, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { existsSync } from 'node:fs'
import { baseTarball, type BaseOptions } from './base.ts'
import { commandOf, type Instruction, pairsOf, refuse, type Stage, substitute } from './dockerfile.ts'
import { type Inputs, keysOf, stageNamed } from './keys.ts'
import { run } from './run.ts'

/** How a container of the image is started: `config` of the OCI image specification. */
export type ImageConfig = {
  Env: string[]
  User?: string
  WorkingDir?: string
  Entrypoint?: string[]
  Cmd?: string[]
  StopSignal?: string
  ExposedPorts?: Record<string, object>
  Labels?: Record<string, string>
  Volumes?: Record<string, object>
}

export type BuiltStage = { rootfs: string; config: ImageConfig }

type Build = Inputs & {
  base: BaseOptions
  /** File of the stage's file system after a `RUN`, by what it comes of: they take long, and most of them are the same the next time. */
  snapshot: (key: string) => string
  /** Where the stages' file systems are. */
  work: string
  built: Map<Stage, Promise<BuiltStage>>
}

type State = { rootfs: string; config: ImageConfig; env: Record<string, string>; args: Record<string, string> }

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const FROM_THE_MACHINE = ['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'http_proxy', 'https_proxy', 'no_proxy']

/**
 * Mounts are private to it and go with it. `/run` holds what the machine knows of its network, for this command only: apt's settings and the authorities that are trusted.
 */
const IN_ROOTFS = `set -e
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/run"
mkdir -p "$1/run/lock"
for each in resolv.conf hosts; do touch "$1/etc/$each"; mount --bind "/etc/$each" "$1/etc/$each"; done
env -u APT_CONFIG apt-config dump --no-empty Acquire | grep -v IndexTargets > "$1/run/apt.conf"
if [ -f /etc/ssl/certs/ca-certificates.crt ]; then cp /etc/ssl/certs/ca-certificates.crt "$1/run/ca.crt"; fi
exec chroot --userspec="$2" "$1" /bin/sh -c "cd '$3' && exec /bin/sh -c \\"\\$0\\"" "$4"`

const TRUST = { APT_CONFIG: '/run/apt.conf', NODE_EXTRA_CA_CERTS: '/run/ca.crt', npm_config_cafile: '/run/ca.crt' }

const runIn = async ({ rootfs, config, env, args }: State, text: string): Promise<void> => {
  const own = Object.fromEntries(
    FROM_THE_MACHINE.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : [])),
  )
  const inside = { ...own, ...TRUST, npm_config_cache: '/run/npm', HOME: '/root', ...args, ...env }
  const place = [config.User ?? '0:0', config.WorkingDir ?? '/']
  const unshare = ['--mount', '--pid', '--fork', '--kill-child', '--propagation', 'private']
  await run('unshare', [...unshare, 'sh', '-c', IN_ROOTFS, 'sh', rootfs, ...place, text], { env: inside })
}

/** Owner of `--chown`: numbers, or names of the image. */
const ownerOf = async (rootfs: string, text: string): Promise<[number, number]> => {
  const idOf = async (name: string, file: string): Promise<number> => {
    if (/^\d+$/.test(name)) return Number(name)
    const rows = (await readFile(path.join(rootfs, 'etc', file), 'utf8')).split('\n').map((row) => row.split(':'))
    const id = rows.find(([each]) => each === name)?.[2]
    if (id === undefined) throw new Error(`--chown=${text}: the image has no ${name} in /etc/${file}`)
    return Number(id)
  }
  const [user = '0', group = user] = text.split(':')
  return [await idOf(user, 'passwd'), await idOf(group, 'group')]
}

const eachFile = async (file: string, act: (file: string, isLink: boolean) => Promise<void>): Promise<void> => {
  const stats = await lstat(file)
  await act(file, stats.isSymbolicLink())
  if (stats.isDirectory()) for (const name of await readdir(file)) await eachFile(path.join(file, name), act)
}

const copyInto = async (
  source: string,
  target: string,
  { isIgnored, owner, mode }: { isIgnored: (file: string) => boolean; owner: [number, number]; mode: number | null },
): Promise<void> => {
  const staged = await mkdtemp(`${target.replace(/\/+$/, '')}.copy-`)
  const name = path.join(staged, 'content')
  await cp(source, name, { recursive: true, verbatimSymlinks: true, filter: (file) => !isIgnored(file) })
  await eachFile(name, async (file, isLink) => {
    await (isLink ? lchown(file, ...owner) : chown(file, ...owner))
    if (mode !== null && !isLink) await chmod(file, mode)
  })
  await run('cp', ['--archive', '--no-target-directory', name, target])
  await rm(staged, { recursive: true })
}

const stageOf = (build: Build, name: string, line: number): Promise<BuiltStage> =>
  builtStage(build, stageNamed(build.dockerfile, name) ?? refuse(line, `there is no stage ${name}`))

const copy = async (build: Build, state: State, { flags, text, line }: Instruction): Promise<void> => {
  const words = substitute(text, { ...state.args, ...state.env }).split(/\s+/)
  const to = words.pop() ?? ''
  if (words.length === 0) refuse(line, 'COPY needs a source and a target')
  const from = flags['from'] === undefined ? null : await stageOf(build, flags['from'], line)
  const root = from?.rootfs ?? build.context.root
  const target = path.join(state.rootfs, path.posix.resolve(state.config.WorkingDir ?? '/', to))
  const owner = await ownerOf(state.rootfs, flags['chown'] ?? '0:0')
  const mode = flags['chmod'] === undefined ? null : Number.parseInt(flags['chmod'], 8)
  const isIgnored = (file: string): boolean =>
    from === null && file !== root && build.context.isIgnored(path.relative(root, file))
  for (const word of words) {
    const source = path.join(
      root,
      path.posix.resolve('/', from === null ? word : path.posix.resolve(from.config.WorkingDir ?? '/', word)),
    )
    if (!existsSync(source)) refuse(line, `there is no ${word} to copy`)
    const isFolder = (await lstat(source)).isDirectory()
    const place =
      !isFolder && (to.endsWith('/') || words.length > 1 || (existsSync(target) && (await lstat(target)).isDirectory()))
    const file = place ? path.join(target, path.basename(source)) : target
    await mkdir(isFolder ? file : path.dirname(file), { recursive: true })
    await copyInto(source, file, { isIgnored, owner, mode })
  }
}

/** What changes only how a container starts. */
const configure = (state: State, { name, text }: Instruction): void => {
  const { config } = state
  const words = (): string[] => substitute(text, { ...state.args, ...state.env }).split(/\s+/)
  const asKeys = (keys: string[]): Record<string, object> => Object.fromEntries(keys.map((key) => [key, {}]))
  if (name === 'ENV') Object.assign(state.env, pairsOf(text, { ...state.args, ...state.env }))
  else if (name === 'USER') config.User = words()[0] ?? ''
  else if (name === 'ENTRYPOINT') config.Entrypoint = commandOf(text)
  else if (name === 'CMD') config.Cmd = commandOf(text)
  else if (name === 'STOPSIGNAL') config.StopSignal = text
  else if (name === 'LABEL') config.Labels = { ...config.Labels, ...pairsOf(text, state.args) }
  else if (name === 'VOLUME') config.Volumes = asKeys(text.startsWith('[') ? commandOf(text) : words())
  else if (name === 'EXPOSE')
    config.ExposedPorts = asKeys(words().map((port) => (port.includes('/') ? port : `${port}/tcp`)))
}

const execute = async (build: Build, state: State, instruction: Instruction): Promise<void> => {
  const { name, text } = instruction
  if (name === 'RUN') {
    build.base.say(`RUN ${text.replaceAll(/\s+/g, ' ').slice(0, 100)}`)
    await runIn(state, text)
  } else if (name === 'COPY') await copy(build, state, instruction)
  else if (name === 'WORKDIR') {
    state.config.WorkingDir = path.posix.resolve(
      state.config.WorkingDir ?? '/',
      substitute(text, { ...state.args, ...state.env }),
    )
    await mkdir(path.join(state.rootfs, state.config.WorkingDir), { recursive: true })
  } else if (name === 'ARG') {
    const outer = build.dockerfile.args
    if (text.includes('=')) Object.assign(state.args, pairsOf(text, { ...outer, ...state.args }))
    else state.args[text] = outer[text] ?? ''
  } else configure(state, instruction)
}

const unpack = (tarball: string, rootfs: string): Promise<string> =>
  run('tar', ['--numeric-owner', '-C', rootfs, '-xpf', tarball])

const saveSnapshot = async (rootfs: string, file: string): Promise<void> => {
  const draft = `${file}.${process.pid}`
  await run('tar', ['--numeric-owner', '--one-file-system', '-C', rootfs, '-cf', draft, '.'])
  await rename(draft, file)
}

/** Begins with the latest snapshot, or else with the image or stage that it is FROM. @returns how many instructions need not be executed */
const begin = async (build: Build, rootfs: string, on: { from: string; snapshots: string[] }): Promise<number> => {
  const latest = on.snapshots.findLastIndex((file) => file !== '' && existsSync(file))
  const before = stageNamed(build.dockerfile, on.from)
  if (latest >= 0) await unpack(on.snapshots[latest] ?? '', rootfs)
  else if (before === undefined) await unpack(await baseTarball(on.from, build.base), rootfs)
  else await run('cp', ['--archive', '--no-target-directory', (await builtStage(build, before)).rootfs, rootfs])
  return latest + 1
}

const buildStage = async (build: Build, stage: Stage): Promise<BuiltStage> => {
  const rootfs = await mkdtemp(path.join(build.work, 'stage-'))
  await chmod(rootfs, 0o755)
  const keys = await keysOf(stage, build)
  // After the very last one comes the image itself.
  const last = stage === build.dockerfile.last ? stage.instructions.findLastIndex(({ name }) => name === 'RUN') : -1
  const snapshots = stage.instructions.map(({ name }, index) =>
    name === 'RUN' && index !== last ? build.snapshot(keys[index] ?? '') : '',
  )
  const done = await begin(build, rootfs, { from: stage.from, snapshots })
  const before = stageNamed(build.dockerfile, stage.from)
  const from = before === undefined ? { Env: [`PATH=${PATH}`] } : (await builtStage(build, before)).config
  const env = Object.fromEntries(from.Env.map((pair) => pair.split(/=(.*)/s).slice(0, 2)))
  const state: State = { rootfs, config: { ...from, Env: [] }, env, args: {} }
  for (const [index, instruction] of stage.instructions.entries()) {
    const isInSnapshot = index < done && (instruction.name === 'RUN' || instruction.name === 'COPY')
    if (isInSnapshot) continue
    await execute(build, state, instruction)
    const file = snapshots[index] ?? ''
    if (file !== '') await saveSnapshot(rootfs, file)
  }
  const pairs = Object.entries(state.env).map(([name, value]) => `${name}=${value}`)
  return { rootfs, config: { ...state.config, Env: pairs } }
}

const builtStage = (build: Build, stage: Stage): Promise<BuiltStage> => {
  const before = build.built.get(stage) ?? buildStage(build, stage)
  build.built.set(stage, before)
  return before
}

/** Executes a stage of a Dockerfile and those that it needs, in folders below `work`. Needs root: it mounts and changes owners. */
export const buildImage = (stage: Stage, options: Omit<Build, 'built'>): Promise<BuiltStage> =>
  builtStage({ ...options, built: new Map() }, stage)
