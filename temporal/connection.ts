import { Connection, defaultGrpcRetryOptions, isGrpcServiceError, makeGrpcRetryInterceptor } from '@temporalio/client'
import type { TemporalConfig } from '../config/temporal.ts'

/** How to reach Temporal; the keys fit the client's connection and the worker's. */
export const addressOf = ({ address, apiKey, tls }: TemporalConfig) => ({
  address,
  ...(tls === null ? {} : { tls }),
  ...(apiKey === null ? {} : { apiKey }),
})

/**
 * Opens no connection before the first call. The defaults wait up to two minutes between two tries to reconnect and repeat a call for a minute; here
 * a call fails within its deadline and the caller, who has an outbox, comes again.
 */
export const connectLazily = (config: TemporalConfig): Connection =>
  Connection.lazy({
    ...addressOf(config),
    connectTimeout: '3s',
    interceptors: [makeGrpcRetryInterceptor(defaultGrpcRetryOptions({ maxAttempts: 3, initialIntervalMs: () => 100 }))],
    channelArgs: {
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 2_000,
      'grpc.keepalive_time_ms': 20_000,
      'grpc.keepalive_timeout_ms': 5_000,
    },
  })

/** Codes of gRPC that are told apart here. */
export const NOT_FOUND = 5
export const ALREADY_EXISTS = 6
export const PERMISSION_DENIED = 7

/** The gRPC code of an error, also when a client wrapped it. */
export const grpcCode = (error: unknown): number | null => {
  if (isGrpcServiceError(error)) return error.code
  const cause = Error.isError(error) ? error.cause : undefined
  return isGrpcServiceError(cause) ? cause.code : null
}
