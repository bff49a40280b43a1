import { randomBytes } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import type { WorkerOptions } from '@temporalio/worker'

export const testTemporalAddress = (): string => {
  const address = process.env['TEST_TEMPORAL_ADDRESS']
  if (address === undefined)
    throw new Error('TEST_TEMPORAL_ADDRESS is set by test/global-setup.ts: run this with jest.')
  return address
}

/** A name that no other test uses: several run against one server. */
export const uniqueTaskQueue = (): string => `test-${randomBytes(6).toString('hex')}`

/** The workflow code, bundled once for the whole run; where it is worked on alone, bundled by the worker itself. */
export const workflowSource = (): Pick<WorkerOptions, 'workflowBundle' | 'workflowsPath'> => {
  const codePath = process.env['TEST_WORKFLOW_BUNDLE']
  return codePath === undefined
    ? { workflowsPath: fileURLToPath(new URL('../workflows/index.ts', import.meta.url)) }
    : { workflowBundle: { codePath } }
}
