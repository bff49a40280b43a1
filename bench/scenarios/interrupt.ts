import { readFile } from 'node:fs/promises'
import path from 'node:path'
import type { Bench, Ready, Scenario } from '../bench.ts'
import { elapsed, type Figure, inTurn } from '../stats.ts'

const POOL = 10

/** Interrupts a turn amid its words. @returns milliseconds from the request to its acknowledgement, and to the end of the turn */
const interrupt = async (
  bench: Bench,
  { client }: Ready,
  { sessionId, marker, frozen }: { sessionId: string; marker: string; frozen?: number },
): Promise<{ acknowledged: number; over: number }> => {
  const asked = bench.servers.model.asked(marker)
  const turn = client.send(sessionId, `${marker} stream 100000 every 20`).then(
    () => Promise.reject(new Error('the turn went on to its end')),
    (error: Error) => (error.message.includes('turn_cancelled') ? null : Promise.reject(error)),
  )
  turn.catch(() => undefined)
  await asked
  const signal = (name: NodeJS.Signals): unknown => frozen !== undefined && process.kill(frozen, name)
  signal('SIGSTOP')
  const begin = performance.now()
  const acknowledged = await elapsed(() => client.abort(sessionId)).finally(() => signal('SIGCONT'))
  await turn
  return { acknowledged, over: performance.now() - begin }
}

const supervisorPid = async (bench: Bench, sandbox: string | null): Promise<number> => {
  const file = path.join(bench.servers.sandboxDir, sandbox ?? '', 'sandbox.json')
  const { supervisor } = JSON.parse(await readFile(file, 'utf8')) as { supervisor: { pid: number } }
  return supervisor.pid
}

const run = async (bench: Bench): Promise<Figure[]> => {
  const ready = await bench.withPool('light', POOL)
  const session = await ready.open()
  await ready.quiet()
  const one = (name: string, frozen?: number) => (i: number) =>
    interrupt(bench, ready, {
      sessionId: session.id,
      marker: `${name}-${i}.`,
      ...(frozen === undefined ? {} : { frozen }),
    })
  await inTurn(bench.count(5, 2), one('first'))
  const samples = await inTurn(bench.count(50, 5), one('interrupt'))
  const pid = await supervisorPid(bench, session.task_arn)
  const frozen = await inTurn(bench.count(10, 2), one('frozen', pid))
  await ready.client.end(session.id)
  return [
    {
      name: 'interrupt → acknowledged (light)',
      samples: samples.map(({ acknowledged }) => acknowledged),
      reach: { max: 1_000 },
    },
    {
      name: '  the sandbox does not answer',
      samples: frozen.map(({ acknowledged }) => acknowledged),
      reach: { max: 1_000 },
    },
    { name: 'interrupt → its turn is over (light)', samples: samples.map(({ over }) => over) },
  ]
}

export const interrupting: Scenario = {
  name: 'interrupt',
  about: 'turns that are stopped amid their words, also of a sandbox that does not answer',
  run,
}
