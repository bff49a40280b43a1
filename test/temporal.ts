import { randomBytes } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { Client, Connection } from '@temporalio/client'
import type { WorkerOptions } from '@temporalio/worker'

/** Namespace of the test server, made when it starts. */
export const TEST_NAMESPACE = 'lap'

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

/** A client of the test server; close its connection at the end of the test file. */
export const createTestClient = async (): Promise<Client> =>
  new Client({
    connection: await Connection.connect({ address: testTemporalAddress() }),
    namespace: TEST_NAMESPACE,
  })
