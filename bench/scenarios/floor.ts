import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { createInterface } from 'node:readline'
import { endProcess, startProcess } from '../../tools/dev/process.ts'
import type { Bench, Scenario } from '../bench.ts'
import { elapsed, type Figure, inTurn } from '../stats.ts'

const STOP_TIMEOUT_MS = 10_000

const run = async (bench: Bench): Promise<Figure[]> => {
  const { postgres, temporal, watch } = bench.servers
  const script = fileURLToPath(new URL('../floor/server.ts', import.meta.url))
  const { child, record, lastLines } = await startProcess(process.execPath, [script], {
    env: { DATABASE_URL: postgres.url, TEMPORAL_ADDRESS: temporal.address },
    onSpawn: watch,
  })
  try {
    if (child.stdout === null) throw new Error('the floor has no output')
    const line = once(createInterface(child.stdout), 'line')
    const ended = once(child, 'exit').then(() => Promise.reject(new Error(`the floor ended:\n${lastLines()}`)))
    const [port]: unknown[] = await Promise.race([line, ended])
    const get = async (path: string): Promise<void> => {
      const response = await fetch(`http://127.0.0.1:${String(port)}${path}`)
      await response.text()
      if (!response.ok) throw new Error(`the floor answered ${response.status}`)
    }
    const measure = async (path: string, count: number): Promise<number[]> => {
      await inTurn(bench.count(100, 20), () => get(path))
      return inTurn(count, () => elapsed(() => get(path)))
    }
    return [
      {
        name: 'HTTP call + SQL round trip',
        base: 'httpAndSql',
        samples: await measure('/sql', bench.count(1_000, 100)),
      },
      {
        name: 'floor: HTTP call + SQL round trip + Temporal update',
        base: 'floor',
        samples: await measure('/update', bench.count(200, 20)),
      },
    ]
  } finally {
    await endProcess(record, 'SIGTERM', STOP_TIMEOUT_MS)
  }
}

export const floor: Scenario = { name: 'floor', about: 'the least that a request with a durable step can take', run }
