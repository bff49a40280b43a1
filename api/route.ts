import { z } from 'zod'
import type { ErrorCode } from '../domain/errors.ts'
import type { Context } from './http.ts'

/** One documented success. `schema` is left out for streams and empty replies. `headers`: name → what it says. */
export type Reply = {
  status: number
  description: string
  schema?: z.ZodType
  contentType?: string
  headers?: Record<string, string>
}

/**
 * A route as data: what validates a request, what answers it, and what the OpenAPI document says of it are one thing.
 * Routes ask for the master key unless `open`.
 */
export type Route = {
  method: 'get' | 'post' | 'patch' | 'delete'
  /** Router path with `:id` parameters. */
  path: string
  operationId: string
  tag: string
  summary: string
  description?: string
  open?: true
  query?: z.ZodObject
  body?: z.ZodType
  /** Whether `Idempotency-Key` means something here. */
  idempotent?: true
  replies: Reply[]
  /** Errors beyond those that every such route may answer (401, 422, 500, …). */
  errors?: ErrorCode[]
  handle(ctx: Context, input: Input): Promise<void> | void
}

/** A validated request. */
export type Input<Q = unknown, B = unknown> = {
  query: Q
  body: B
  params: Record<string, string>
  idempotencyKey: string | null
  /** Aborted when the client is gone. */
  signal: AbortSignal
}

type NoQuery = z.ZodObject

/** Gives the handler the types of its schemas. */
export const route = <Q extends z.ZodObject = NoQuery, B extends z.ZodType = z.ZodUndefined>(
  definition: Omit<Route, 'handle' | 'query' | 'body'> & {
    query?: Q
    body?: B
    handle(ctx: Context, input: Input<z.output<Q>, z.output<B>>): Promise<void> | void
  },
): Route => definition

export const IdempotencyKey = z
  .string()
  .min(1, 'must not be empty')
  .max(255, 'must have at most 255 characters')
  .regex(/^[\x21-\x7e]+$/, 'must be printable ASCII without spaces')
