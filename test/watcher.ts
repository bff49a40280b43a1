import { rm } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { endProcess, type ProcessRecord } from '../tools/dev/process.ts'

/** Runs beside a test run; reads process records, one JSON a line, and ends them when the run is gone. */
const records: ProcessRecord[] = []
for await (const line of createInterface({ input: process.stdin })) {
  const record: ProcessRecord = JSON.parse(line)
  records.push(record)
}
await Promise.all(records.map((record) => endProcess(record, 'SIGINT', 5_000)))
const dir = process.argv[2]
if (dir !== undefined) await rm(dir, { recursive: true, force: true })
