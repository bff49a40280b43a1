import { z } from 'zod'
import type { ApiDeps } from '../deps.ts'
import { openApi } from '../openapi.ts'
import { route } from '../route.ts'
import type { Route } from '../route.ts'

/** @param all the whole table, this route included */
export const openApiRoutes = ({ config }: Pick<ApiDeps, 'config'>, all: () => Route[]): Route[] => {
  let document: Record<string, unknown> | undefined
  return [
    route({
      method: 'get',
      path: '/openapi.json',
      operationId: 'getOpenApi',
      tag: 'platform',
      summary: 'This document',
      open: true,
      replies: [{ status: 200, description: 'OpenAPI 3.1', schema: z.record(z.string(), z.unknown()) }],
      handle(ctx) {
        document ??= openApi(all(), config.baseUrl)
        ctx.body = document
      },
    }),
  ]
}
