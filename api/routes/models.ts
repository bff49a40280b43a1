import { z } from 'zod'
import { AppError, errorText } from '../../domain/errors.ts'
import { connectTimeoutMs, modelsCacheMs } from '../../domain/limits.ts'
import type { ApiDeps } from '../deps.ts'
import { route } from '../route.ts'
import type { Route } from '../route.ts'

const ModelList = z
  .looseObject({ object: z.string().optional(), data: z.array(z.looseObject({ id: z.string() })) })
  .meta({ id: 'ModelList', description: 'The list of the gateway, as it came.' })
type ModelList = z.output<typeof ModelList>

const timeoutMs = 10 * connectTimeoutMs

const fetchModels = async ({ apiBase, apiKey }: ApiDeps['config']['litellm']): Promise<ModelList> => {
  const response = await fetch(`${apiBase}/v1/models`, {
    headers: { authorization: `Bearer ${apiKey}` },
    signal: AbortSignal.timeout(timeoutMs),
  }).catch((error: unknown) => {
    throw new AppError('upstream', `the gateway cannot be reached: ${errorText(error)}`, { cause: error })
  })
  if (!response.ok) throw new AppError('upstream', `the gateway answered ${response.status} to its list of models`)
  const list = ModelList.safeParse(await response.json().catch(() => null))
  if (!list.success) throw new AppError('upstream', 'the gateway answered with something that is no list of models')
  return list.data
}

export const modelRoutes = ({ config }: Pick<ApiDeps, 'config'>): Route[] => {
  let cached: { until: number; list: Promise<ModelList> } | null = null
  /** One request to the gateway at a time, kept for a minute; a failure is not kept. */
  const models = (): Promise<ModelList> => {
    if (cached !== null && cached.until > performance.now()) return cached.list
    const list = fetchModels(config.litellm)
    const entry = { until: performance.now() + modelsCacheMs, list }
    cached = entry
    list.catch(() => {
      if (cached === entry) cached = null
    })
    return list
  }
  return [
    route({
      method: 'get',
      path: '/api/v1/models',
      operationId: 'listModels',
      tag: 'platform',
      summary: 'Models of the gateway',
      description: 'Kept for a minute.',
      replies: [{ status: 200, description: 'The list', schema: ModelList }],
      errors: ['upstream'],
      async handle(ctx) {
        ctx.body = await models()
      },
    }),
  ]
}
