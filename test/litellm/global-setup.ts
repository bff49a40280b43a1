import base from '../global-setup.ts'
import { liteLlmEnvironment } from './environment.ts'

/** As for all tests, and the environment of LiteLLM, which may take minutes to be made. */
const setup = async (...given: Parameters<typeof base>): Promise<void> => {
  await liteLlmEnvironment((text) => console.log(text))
  await base(...given)
}

export default setup
