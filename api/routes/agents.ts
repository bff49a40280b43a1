import { randomUUID } from 'node:crypto'
import {
  getAgent,
  getAgentAny,
  insertAgent,
  listAgents,
  lockAgent,
  markAgentDeleted,
  updateAgent,
} from '../../db/agents.ts'
import { addOutbox } from '../../db/outbox.ts'
import { recordPoolSuccess } from '../../db/pool.ts'
import type { AgentRow } from '../../db/entities/agent.ts'
import { AppError } from '../../domain/errors.ts'
import { isId } from '../../domain/names.ts'
import { ALLOW_ALL } from '../../domain/permission.ts'
import {
  checkAgainstPlatform,
  checkHostBindings,
  checkLimits,
  checkResources,
  hashOf,
  imageOf,
  reconcileHosts,
  sealEnv,
} from '../agent-input.ts'
import type { ApiDeps } from '../deps.ts'
import { presentAgent } from '../present/agent.ts'
import { route } from '../route.ts'
import type { Route } from '../route.ts'
import { Agent, AgentCreate, AgentList, AgentListQuery, AgentPatch } from '../schemas/agent.ts'

const BASE = '/api/v1/managed_agents/agents'
const tag = 'agents'
const DEFAULT_HARNESS = 'opencode'

/** @throws AppError `not_found` */
export const findAgent = async (
  { sql }: Pick<ApiDeps, 'sql'>,
  id: string | undefined,
  { deletedToo = false } = {},
): Promise<AgentRow> => {
  const find = deletedToo ? getAgentAny : getAgent
  const agent = id !== undefined && isId(id) ? await find(sql, id) : null
  if (agent === null) throw new AppError('not_found', `agent '${id}' not found`)
  return agent
}

const create = (deps: ApiDeps): Route =>
  route({
    method: 'post',
    path: BASE,
    operationId: 'createAgent',
    tag,
    summary: 'Create an agent',
    description: 'The image of its harness is taken down now: later changes of the setting do not touch it.',
    body: AgentCreate,
    replies: [{ status: 200, description: 'The agent', schema: Agent }],
    async handle(ctx, { body }) {
      checkAgainstPlatform(deps, body)
      checkResources(deps, body.resources ?? null)
      const { env_vars = {}, env_var_hosts = {}, allow_out = [] } = body
      checkHostBindings(env_var_hosts, Object.keys(env_vars), allow_out)
      const harness_id = body.harness_id ?? DEFAULT_HARNESS
      checkLimits(deps, harness_id, body)
      const source = {
        harness_id,
        harness_image: imageOf(deps, harness_id),
        repo_url: body.repo_url ?? null,
        branch: body.branch ?? 'main',
        setup_cmd: body.setup_cmd ?? null,
        env_vars: sealEnv(deps, env_vars),
        allow_out,
        deny_out: body.deny_out ?? [],
        resources: body.resources ?? null,
      }
      const row = await insertAgent(deps.sql, {
        ...source,
        id: randomUUID(),
        name: body.name ?? null,
        model: body.model,
        prompt: body.prompt ?? null,
        tools: body.tools ?? [],
        pfp_url: body.pfp_url ?? null,
        mcp_servers: body.mcp_servers ?? [],
        permissions: body.permissions ?? ALLOW_ALL,
        max_turns: body.max_turns ?? null,
        max_cost_usd: body.max_cost_usd ?? null,
        env_var_hosts,
        projects: body.projects ?? [],
        preload_memory_limit: body.preload_memory_limit ?? 10,
        template_hash: hashOf(deps, source),
        created_by: 'ui',
      })
      ctx.body = presentAgent(deps, row)
    },
  })

const list = (deps: ApiDeps): Route =>
  route({
    method: 'get',
    path: BASE,
    operationId: 'listAgents',
    tag,
    summary: 'List agents',
    query: AgentListQuery,
    replies: [{ status: 200, description: 'A page of agents', schema: AgentList }],
    async handle(ctx, { query }) {
      const { data, total } = await listAgents(deps.sql, { ...query, search: query.search ?? '' })
      ctx.body = {
        data: data.map((row) => ({
          ...presentAgent(deps, row),
          session_count: row.session_count,
          has_active_session: row.has_active_session,
        })),
        total,
        limit: query.limit,
        offset: query.offset,
      }
    },
  })

const get = (deps: ApiDeps): Route =>
  route({
    method: 'get',
    path: `${BASE}/:id`,
    operationId: 'getAgent',
    tag,
    summary: 'One agent',
    replies: [{ status: 200, description: 'The agent', schema: Agent }],
    errors: ['not_found'],
    async handle(ctx, { params }) {
      ctx.body = presentAgent(deps, await findAgent(deps, params.id))
    },
  })

/** What follows from a patch: bindings, the image of another harness, the hash of what sandboxes are made from. */
const changesOf = (deps: ApiDeps, before: AgentRow, body: AgentPatch): Partial<AgentRow> => {
  const env_vars = body.env_vars === undefined ? before.env_vars : sealEnv(deps, body.env_vars, before.env_vars)
  const names = Object.keys(env_vars)
  const wanted = body.allow_out ?? before.allow_out
  if (body.env_var_hosts !== undefined) checkHostBindings(body.env_var_hosts, names, wanted)
  const hosts = reconcileHosts(body.env_var_hosts ?? before.env_var_hosts, names, wanted)
  const sameHarness = body.harness_id === undefined || body.harness_id === before.harness_id
  const image = sameHarness ? before.harness_image : imageOf(deps, body.harness_id ?? before.harness_id)
  const changes = { ...body, ...hosts, env_vars, harness_image: body.harness_image ?? image }
  return { ...changes, template_hash: hashOf(deps, { ...before, ...changes }) }
}

const patch = (deps: ApiDeps): Route =>
  route({
    method: 'patch',
    path: `${BASE}/:id`,
    operationId: 'updateAgent',
    tag,
    summary: 'Change an agent',
    description: 'Sessions that run keep what they started with. Warm sandboxes of the old template are replaced.',
    body: AgentPatch,
    replies: [{ status: 200, description: 'The agent', schema: Agent }],
    errors: ['not_found'],
    async handle(ctx, { params, ...input }) {
      const body = input.body as AgentPatch
      checkAgainstPlatform(deps, body)
      checkResources(deps, body.resources ?? null)
      const { id } = await findAgent(deps, params.id)
      const row = await deps.sql.tx(async (tx) => {
        const before = await lockAgent(tx, id)
        if (before === null) return null
        if (body.harness_id !== undefined || body.max_turns !== undefined)
          checkLimits(deps, body.harness_id ?? before.harness_id, { ...before, ...body })
        await addOutbox(tx, 'poke_pool', id)
        const changes = changesOf(deps, before, body)
        // What failed was the template as it was: the new one is tried at once.
        if (changes.template_hash !== before.template_hash) await recordPoolSuccess(tx, id)
        return updateAgent(tx, id, changes)
      })
      if (row === null) throw new AppError('not_found', `agent '${id}' not found`)
      deps.outbox.kick()
      ctx.body = presentAgent(deps, row)
    },
  })

const remove = (deps: ApiDeps): Route =>
  route({
    method: 'delete',
    path: `${BASE}/:id`,
    operationId: 'deleteAgent',
    tag,
    summary: 'Delete an agent',
    description: 'Its live sessions end with `agent_deleted` and its warm sandboxes are removed.',
    replies: [{ status: 204, description: 'Deleted' }],
    errors: ['not_found'],
    async handle(ctx, { params }) {
      const agent = await findAgent(deps, params.id)
      await markAgentDeleted(deps.sql, agent.id)
      deps.outbox.kick()
      ctx.status = 204
    },
  })

export const agentRoutes = (deps: ApiDeps): Route[] => [create(deps), list(deps), get(deps), patch(deps), remove(deps)]
