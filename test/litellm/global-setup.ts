import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import base from '../global-setup.ts'
import { liteLlmEnvironment } from './environment.ts'

/** Else the first sandbox of a harness would install them, in the time of a test. */
const installHarnesses = async (): Promise<void> => {
  const child = spawn(process.execPath, [fileURLToPath(new URL('../../tools/harness.ts', import.meta.url))], {
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0) throw new Error('The packages of the harnesses cannot be installed: see above.')
}

/** As for all tests; and the environment of LiteLLM and the packages of all harnesses, which take minutes the first time. */
const setup = async (...given: Parameters<typeof base>): Promise<void> => {
  await Promise.all([liteLlmEnvironment((text) => console.log(text)), installHarnesses()])
  await base(...given)
}

export default setup
