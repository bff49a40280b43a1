import { randomUUID } from 'node:crypto'
import type { NewSession } from '../db/claims.ts'
import type { AgentRow } from '../db/entities/agent.ts'
import type { SessionRow } from '../db/entities/session.ts'
import { forkSession } from '../db/forks.ts'
import { bodyHash } from '../db/turns.ts'
import type { Logger } from '../telemetry/log.ts'
import { claimOf, report } from './create-session.ts'
import type { ApiDeps } from './deps.ts'
import type { SessionFork } from './schemas/checkpoint.ts'

type Request = { body: SessionFork; idempotencyKey: string | null; log: Logger }

/** All that the source was opened with; what it has used is not counted again. */
const forkOf = (
  deps: ApiDeps,
  agent: AgentRow,
  {
    source,
    title,
    key,
  }: { source: SessionRow; title: string | null | undefined; key: Pick<NewSession, 'idempotencyKey' | 'bodyHash'> },
): NewSession => ({
  ...key,
  id: randomUUID(),
  agentId: agent.id,
  title: title === undefined ? source.title : title,
  request: source.request,
  model: source.model,
  prompt: source.prompt,
  idleTimeoutMs: deps.config.session.idleTimeoutMs,
  maxAgeMs: deps.config.session.maxAgeMs,
  initialTurn: null,
  origin: source.origin,
  createdBy: 'ui',
  permissions: source.permissions,
  limits: { max_turns: source.max_turns, max_cost_usd: source.max_cost_usd },
  claim: claimOf(deps, agent),
})

/**
 * Makes a session that goes on from a checkpoint of another. Its workflow, which is started by the outbox, restores it and binds the sandbox; so a fork needs this process
 * for one transaction only.
 * @throws AppError `not_found`, `conflict` (`no_checkpoint`, or a key used with another body), `rate_limited`
 */
export const forkAgentSession = async (
  deps: ApiDeps,
  { agent, sourceId }: { agent: AgentRow; sourceId: string },
  { body, idempotencyKey, log }: Request,
): Promise<{ session: SessionRow; replayed: boolean }> => {
  const { title, checkpoint_id, turn_id } = body
  const hash = idempotencyKey === null ? null : bodyHash({ fork_of: sourceId, ...body })
  const key = { idempotencyKey, bodyHash: hash }
  const forked = await forkSession(deps.sql, {
    ...key,
    sourceId,
    from: {
      ...(checkpoint_id === undefined ? {} : { checkpointId: checkpoint_id }),
      ...(turn_id === undefined ? {} : { turnId: turn_id }),
    },
    make: (source) => forkOf(deps, agent, { source, title, key }),
  })
  if (!forked.existing) report(deps, log, forked)
  return { session: forked.session, replayed: forked.existing }
}
