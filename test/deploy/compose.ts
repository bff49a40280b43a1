import { readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parse } from 'yaml'
import { instructionsOf } from './image.ts'

export const root = fileURLToPath(new URL('../..', import.meta.url))
export const read = (file: string): string => readFileSync(path.join(root, file), 'utf8')

export type Service = {
  image: string
  build?: string
  command?: string[]
  entrypoint?: string[]
  environment?: Record<string, string | number>
  depends_on?: Record<string, { condition: string }>
  healthcheck?: { test: string[] }
  ports?: string[]
  volumes?: string[]
  init?: boolean
}

export type Compose = { services: Record<string, Service>; volumes: Record<string, unknown> }

export const composeOf = (file: string): Compose => parse(read(file), { merge: true }) as Compose

/** As compose puts a second file over a first: variables by name, volumes added. */
export const overlaid = (base: Compose, over: Compose): Compose => ({
  ...base,
  services: Object.fromEntries(
    Object.entries(base.services).map(([name, service]) => {
      const { environment = {}, volumes = [], ...rest } = over.services[name] ?? ({} as Partial<Service>)
      const merged = {
        ...service,
        ...rest,
        environment: { ...service.environment, ...environment },
        volumes: [...(service.volumes ?? []), ...volumes],
      }
      return [name, merged]
    }),
  ),
})

/** What a careful operator exports before `docker compose up`. */
export const GIVEN: Record<string, string> = {
  POSTGRES_PASSWORD: '0123456789abcdef',
  MASTER_KEY: '0123456789abcdef',
  ENCRYPTION_KEY: Buffer.alloc(32, 7).toString('base64'),
  LITELLM_API_BASE: 'https://litellm.example.com',
  LITELLM_API_KEY: 'sk-test',
}

/** Compose' interpolation, innermost first: `${NAME:-default}`, `${NAME:?message}`. */
export const interpolate = (text: string, given: Record<string, string>): string => {
  const next = text.replace(
    /\$\{(\w+)(:[-?])?([^{}]*)\}/,
    (_, name: string, kind: string | undefined, rest: string) => {
      const value = given[name]
      if (value !== undefined && value !== '') return value
      if (kind === ':-') return rest
      throw new Error(`${name}: ${rest}`)
    },
  )
  return next === text ? text : interpolate(next, given)
}

export const environmentIn = ({ services }: Compose, name: string, given = GIVEN): Record<string, string> =>
  Object.fromEntries(
    Object.entries(services[name]?.environment ?? {}).map(([key, value]) => [key, interpolate(String(value), given)]),
  )

/** The settings that a service of ours has in its container. */
export const settingsIn = (compose: Compose, name: string, given = GIVEN): Record<string, string> => ({
  ...Object.fromEntries(
    instructionsOf(read('Dockerfile'))
      .filter(({ keyword }) => keyword === 'ENV')
      .flatMap(({ rest }) => rest.split(/\s+/).map((pair) => pair.split('=', 2) as [string, string])),
  ),
  ...environmentIn(compose, name, given),
})
