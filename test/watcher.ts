import { rm } from 'node:fs/promises'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { endProcess, type ProcessRecord } from '../tools/dev/process.ts'
import { removeSandboxes } from '../tools/dev/sandboxes.ts'

/** Runs beside a test run; reads process records, one JSON a line, and ends them when the run is gone. */
const records: ProcessRecord[] = []
for await (const line of createInterface({ input: process.stdin })) {
  const record: ProcessRecord = JSON.parse(line)
  records.push(record)
}
await Promise.all(records.map((record) => endProcess(record, 'SIGINT', 5_000)))
const [dir, clusterDir] = process.argv.slice(2)
if (clusterDir !== undefined) {
  const { endNodeOf } = await import('../tools/cluster/node.ts')
  await endNodeOf(clusterDir)
}
if (dir !== undefined) {
  await removeSandboxes(path.join(dir, 'sandboxes'))
  await rm(dir, { recursive: true, force: true, maxRetries: 5 })
}
