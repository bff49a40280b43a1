import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from '@jest/globals'
import { type ReplayWorkerOptions, Runtime, Worker } from '@temporalio/worker'
import { workflowSource } from '../temporal.ts'
import { activitiesIn, recordedHistories, saidIn } from './histories.ts'

/**
 * Workflows that run while the platform is updated go on with the new code. If this fails, the change breaks them: use `patched`, and do not record
 * the histories anew.
 */
const histories = recordedHistories()

const ignore = (): void => undefined
// What does not replay is told by the results.
Runtime.install({
  logger: { trace: ignore, debug: ignore, info: ignore, warn: ignore, error: ignore, log: ignore },
  telemetryOptions: { logging: { forward: {}, filter: { core: 'ERROR', other: 'ERROR' } } },
})
afterAll(() => Runtime.instance().shutdown())

const PASSED = 'replayed'

/** Name of the history → what came of it. */
const replay = async (workflows: Partial<ReplayWorkerOptions>): Promise<Record<string, string>> => {
  const recorded = histories.map(({ name, history }) => ({ workflowId: name, history }))
  const results: Record<string, string> = {}
  for await (const { workflowId, error } of Worker.runReplayHistories(workflows, recorded))
    results[workflowId] = error === undefined ? PASSED : `${error.name}: ${error.message}`
  return results
}

test('every recorded history replays against the workflows as they are', async () => {
  expect(histories.length).toBeGreaterThan(0)
  expect(await replay(workflowSource())).toEqual(Object.fromEntries(histories.map(({ name }) => [name, PASSED])))
}, 60_000)

test('workflows with a step that was not there before are refused', async () => {
  const changed = fileURLToPath(new URL('changed-workflows.ts', import.meta.url))
  const results = await replay({ workflowsPath: changed })
  expect(Object.keys(results).toSorted()).toEqual(histories.map(({ name }) => name).toSorted())
  for (const result of Object.values(results)) expect(result).toMatch(/^DeterminismViolationError: /)
}, 60_000)

test('together the histories have been through every step', () => {
  expect([...new Set(histories.flatMap(activitiesIn))].toSorted()).toEqual([
    'attemptDelivery',
    'bindSandbox',
    'endIfDue',
    'failSession',
    'leaveSandbox',
    'loadSession',
    'obtainSandbox',
    'provisionPooled',
    'provisionSandbox',
    'reconcilePool',
    'removeSandbox',
    'runTurn',
    'stopSession',
    'storeCheckpoint',
    'sweep',
  ])
})

test('some of them continue as new', () => {
  const continued = histories.filter(({ text }) => text.includes('WORKFLOW_EXECUTION_CONTINUED_AS_NEW'))
  expect(continued.map(({ name }) => name)).toEqual(['pool-continued-as-new', 'session-continued-as-new'])
})

test.each(histories.map((history) => [history.name, history] as const))(
  'the history %s names no machine, no path of one, and is small',
  (_, history) => {
    const said = saidIn(history)
    expect(said).not.toMatch(/\/(tmp|home|root|Users|work|opt|var)\//)
    expect(said).not.toMatch(/\d@[\w.-]+/)
    expect(history.text.length).toBeLessThan(400 * 1024)
  },
)
