/**
 * The floor in a process of its own: `GET /sql` makes one round trip to Postgres, `GET /update` also one Temporal update. Nothing is faster that
 * does as much over HTTP on this machine. Configuration by environment, the port on the first line of the output; ends with SIGTERM.
 */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { Client, Connection } from '@temporalio/client'
import { NativeConnection, Runtime, Worker } from '@temporalio/worker'
import { Pool } from 'pg'
import { echo } from './workflow.ts'

const TASK_QUEUE = 'floor'
const { DATABASE_URL: connectionString = '', TEMPORAL_ADDRESS: address = '' } = process.env
const ended = once(process, 'SIGTERM')
const quiet = { trace() {}, debug() {}, info() {}, warn() {}, error() {}, log() {} }
Runtime.install({ shutdownSignals: [], logger: quiet })

const pool = new Pool({ connectionString, max: 4 })
const connection = await Connection.connect({ address })
const client = new Client({ connection, namespace: 'lap' })
const native = await NativeConnection.connect({ address })
const worker = await Worker.create({
  connection: native,
  namespace: 'lap',
  taskQueue: TASK_QUEUE,
  workflowsPath: fileURLToPath(new URL('workflow.ts', import.meta.url)),
})
const working = worker.run()
const workflow = await client.workflow.start('floor', { taskQueue: TASK_QUEUE, workflowId: 'floor' })

const server = createServer((request, response) => {
  const answer = async (): Promise<void> => {
    await pool.query('select 1')
    if (request.url === '/update') await workflow.executeUpdate(echo, { args: ['floor'] })
    response.setHeader('content-type', 'application/json')
    response.end('{"ok":true}')
  }
  answer().catch(() => response.destroy())
})
server.listen(0, '127.0.0.1')
await once(server, 'listening')
console.log((server.address() as AddressInfo).port)

await ended
server.close()
server.closeAllConnections()
await workflow.terminate()
worker.shutdown()
await working
await Promise.all([connection.close(), native.close(), pool.end()])
