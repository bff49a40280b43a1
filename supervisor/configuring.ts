import { isDeepStrictEqual } from 'node:util'
import { AppError } from '../domain/errors.ts'
import type { Configuration, SupervisorConfig } from '../domain/supervisor-protocol.ts'
import { refused } from './refused.ts'
import { asConfiguration } from './requests.ts'

/** Takes a configuration, and starts the sandbox with the first one. @throws AppError `invalid`; `conflict` for another one than the first */
export type Configuring = (body: unknown, token: string) => Promise<Configuration>

export type ConfiguringOptions = {
  sandboxId: string
  dir: string
  listen: SupervisorConfig['listen']
  /** `dir`: absolute. */
  harnesses: Promise<{ id: string; dir: string }[]>
  start: (config: SupervisorConfig) => void
}

const wrong = (path: string, message: string): AppError =>
  new AppError('invalid', `${path}: ${message}`, { details: [{ path, message }] })

export const createConfiguring = (options: ConfiguringOptions): Configuring => {
  let first: Configuration | null = null

  return async (body, token) => {
    const configuration = asConfiguration(body)
    if (configuration.sandbox_id !== options.sandboxId)
      throw wrong('sandbox_id', `this is the sandbox ${options.sandboxId}`)
    const harnesses = await options.harnesses
    const harness = harnesses.find(({ id }) => id === configuration.harness.id)
    if (harness === undefined) {
      const ids = harnesses.map(({ id }) => id).join(', ')
      throw wrong('harness.id', `the image has no harness "${configuration.harness.id}", only: ${ids}`)
    }
    if (first !== null && !isDeepStrictEqual(first, configuration))
      throw refused('other_configuration', 'the sandbox was given another configuration before')
    if (first === null) {
      first = configuration
      const { dir, listen } = options
      options.start({ ...configuration, token, dir, listen, harness: { id: harness.id, dir: harness.dir } })
    }
    return configuration
  }
}
