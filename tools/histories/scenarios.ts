import { JANITOR_WORKFLOW_ID } from '../../domain/names.ts'
import { until } from '../../test/until.ts'
import { startReceiver, status } from '../../test/receiver.ts'
import type { World } from './world.ts'

/** Plays one path and names the run that went through it; the last one of the workflow unless `runId` says another. */
type Scenario = (world: World) => Promise<{ workflowId: string; runId?: string }>

const poolLife: Scenario = async (world) => {
  const agent = await world.createAgent('pooled')
  await world.deleteSession(await world.open(agent))
  const [oldest] = await world.settles(agent, 2)
  const session = await world.openReady(agent)
  await world.settles(agent, 2)
  await world.deleteSession(session)
  // Past its time to live: replaced.
  await world.stack.sql(
    "update sandbox set ready_at = ready_at - interval '1 minute' where agent_id = $1 and state = 'warm' and id <> $2",
    [agent, oldest?.id],
  )
  await world.poke(agent)
  await until('a replacement', 60_000, async () => (await world.pool(agent)).some(({ retiring }) => retiring))
  await world.settles(agent, 2)
  // Another template: replaced at once.
  await world.stack.http('PATCH', `/agents/${agent}`, { setup_cmd: ': changed' })
  await until('the new template', 60_000, async () =>
    (await world.pool(agent)).some(({ state }) => state === 'provisioning'),
  )
  await world.settles(agent, 2)
  await world.deleteAgent(agent)
  return world.ended(world.poolWorkflow(agent))
}

const poolFailing: Scenario = async (world) => {
  const agent = await world.createAgent('failing', { setup_cmd: 'exit 1' })
  await world.open(agent)
  const failures = (n: number) =>
    until(`${n} failures`, 60_000, async () => {
      const [state] = await world.stack.sql<{ failures: number }>(
        'select failures from pool_state where agent_id = $1',
        [agent],
      )
      return (state?.failures ?? 0) >= n
    })
  await failures(1)
  await world.stack.sql('update pool_state set backoff_until = now() where agent_id = $1', [agent])
  await world.poke(agent)
  await failures(2)
  await world.deleteAgent(agent)
  return world.ended(world.poolWorkflow(agent))
}

const poolContinued: Scenario = async (world) => {
  const agent = await world.createAgent('poked')
  await world.deleteSession(await world.open(agent))
  await world.settles(agent, 2)
  const workflowId = world.poolWorkflow(agent)
  const runId = await world.runOf(workflowId)
  await until('it continues as new', 60_000, async () => {
    await world.client.workflow.getHandle(workflowId).signal('poke')
    return (await world.runOf(workflowId)) !== runId
  })
  await world.deleteAgent(agent)
  await world.ended(workflowId)
  return { workflowId, runId }
}

const warmTurnsDeleted: Scenario = async (world) => {
  const agent = await world.createAgent('warm')
  await world.deleteSession(await world.open(agent))
  await world.settles(agent, 2)
  const session = await world.openReady(agent)
  for (const text of ['m-one words=2', 'm-two words=3']) await world.say(session, text)
  // Two at once: the second waits.
  await Promise.all([world.say(session, 'm-three words=2'), world.say(session, 'm-four words=2')])
  await world.deleteSession(session)
  await world.deleteAgent(agent)
  return world.ended(world.session(session))
}

const coldIdle: Scenario = async (world) => {
  const session = await world.openReady(await world.createAgent('idle'))
  await world.stack.sql('update session set idle_timeout_ms = 1000 where id = $1', [session])
  await world.say(session, 'm-idle words=2')
  return world.ended(world.session(session))
}

const movedDuringTurn: Scenario = async (world) => {
  const session = await world.openReady(await world.createAgent('moved'))
  const cut = world.say(session, 'm-cut words=400 gap=50')
  await world.streaming('m-cut')
  process.kill(await world.supervisorPid(session), 'SIGKILL')
  await cut
  await world.say(session, 'm-moved words=2')
  await world.deleteSession(session)
  return world.ended(world.session(session))
}

const restartedIdle: Scenario = async (world) => {
  const session = await world.openReady(await world.createAgent('restarted'))
  await world.restart(session)
  await world.say(session, 'm-restarted words=2')
  await world.deleteSession(session)
  return world.ended(world.session(session))
}

const checkpointed: Scenario = async (world) => {
  const session = await world.openReady(await world.createAgent('checkpointed'))
  await world.say(session, 'm-first words=2')
  await world.checkpointed(session)
  await world.say(session, 'm-second words=2')
  await world.checkpointed(session)
  // One is due when it leaves.
  await world.stack.sql('update session set checkpoint_seq = 0 where id = $1', [session])
  await world.restart(session)
  await world.say(session, 'm-moved words=2')
  await world.checkpointed(session)
  await world.deleteSession(session)
  return world.ended(world.session(session))
}

const deletedWhileCreating: Scenario = async (world) => {
  const session = await world.open(await world.createAgent('hasty', { setup_cmd: 'sleep 30' }))
  await world.supervisorPid(session)
  await world.deleteSession(session)
  return world.ended(world.session(session))
}

const deletedDuringTurn: Scenario = async (world) => {
  const session = await world.openReady(await world.createAgent('stopped'))
  const cut = world.say(session, 'm-stopped words=400 gap=50')
  await world.streaming('m-stopped')
  await world.deleteSession(session)
  await cut
  return world.ended(world.session(session))
}

const failedStart: Scenario = async (world) => {
  const session = await world.open(await world.createAgent('bad', { setup_cmd: 'echo why; exit 1' }))
  await world.reaches(session, 'failed')
  return world.ended(world.session(session))
}

const startTriedTwice: Scenario = async (world) => {
  const session = await world.open(await world.createAgent('dying', { setup_cmd: 'kill -9 $PPID' }))
  await world.reaches(session, 'failed')
  return world.ended(world.session(session))
}

const agedDuringTurn: Scenario = async (world) => {
  const session = await world.openReady(await world.createAgent('aged'))
  const cut = world.say(session, 'm-aged words=400 gap=50')
  await world.streaming('m-aged')
  await world.stack.sql("update session set max_age_at = now() + interval '1 second' where id = $1", [session])
  await world.wake(session)
  await cut
  return world.ended(world.session(session))
}

const cancelled: Scenario = async (world) => {
  const session = await world.openReady(await world.createAgent('cancelled'))
  const cut = world.say(session, 'm-cancelled words=400 gap=50')
  await world.streaming('m-cancelled')
  await world.client.workflow.getHandle(world.session(session)).cancel()
  await cut
  return world.ended(world.session(session))
}

const continued: Scenario = async (world) => {
  const session = await world.openReady(await world.createAgent('long'))
  const workflowId = world.session(session)
  const runId = await world.runOf(workflowId)
  await until('it continues as new', 60_000, async () => {
    await world.say(session, 'm-again words=1')
    return (await world.runOf(workflowId)) !== runId
  })
  await world.say(session, 'm-new-run words=1')
  await world.deleteSession(session)
  await world.ended(workflowId)
  return { workflowId, runId }
}

const webhookTriedAgain: Scenario = async (world) => {
  await using receiver = await startReceiver()
  receiver.answer((response, _, n) => response.writeHead(n < 3 ? 503 : 204).end())
  const { webhook, delivery } = await world.happening(receiver.url)
  await world.tried(delivery, 1)
  // Asked for while it waits; then it waits for its time.
  await world.redeliver(webhook, delivery)
  await world.tried(delivery, 3)
  return world.ended(world.delivery(delivery))
}

const webhookDeleted: Scenario = async (world) => {
  await using receiver = await startReceiver()
  receiver.answer(status(503, { 'retry-after': '600' }))
  const { webhook, delivery } = await world.happening(receiver.url)
  await world.tried(delivery, 1)
  await world.stack.http('DELETE', `/webhooks/${webhook}`)
  return world.ended(world.delivery(delivery))
}

const janitor: Scenario = async (world) => {
  const schedule = world.client.schedule.getHandle('janitor')
  await schedule.trigger()
  const { workflowId } = await until('it has looked', 60_000, async () => {
    const { recentActions } = (await schedule.describe()).info
    const action = recentActions.at(-1)?.action
    return action?.type === 'startWorkflow' ? action.workflow : null
  })
  if (!workflowId.startsWith(JANITOR_WORKFLOW_ID)) throw new Error(`not the janitor: ${workflowId}`)
  return world.ended(workflowId)
}

/** Each is a file of its name under test/histories. */
export const scenarios: Record<string, Scenario> = {
  'pool-filled-claimed-replaced-drained': poolLife,
  'pool-backing-off': poolFailing,
  'pool-continued-as-new': poolContinued,
  'session-warm-turns-deleted': warmTurnsDeleted,
  'session-cold-idle': coldIdle,
  'session-moved-during-turn': movedDuringTurn,
  'session-restarted': restartedIdle,
  'session-checkpointed': checkpointed,
  'session-deleted-while-creating': deletedWhileCreating,
  'session-deleted-during-turn': deletedDuringTurn,
  'session-failed-start': failedStart,
  'session-start-tried-twice': startTriedTwice,
  'session-aged-during-turn': agedDuringTurn,
  'session-cancelled': cancelled,
  'session-continued-as-new': continued,
  'webhook-tried-again': webhookTriedAgain,
  'webhook-deleted': webhookDeleted,
  'janitor-look': janitor,
}
