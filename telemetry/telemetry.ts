import type { Logger } from './log.ts'
import type { Metrics } from './metrics.ts'

/**
 * What business events are told to. `events/` has one function an event: it writes one log line, whose `event` is the function's name in snake case,
 * and counts. Fields are those of the line; ids are in lines only, never in labels.
 */
export type Telemetry = { log: Logger; metrics: Metrics }

/** The unit of all durations in metrics. Clocks of two machines may differ: never below 0. */
export const seconds = (ms: number): number => Math.max(0, ms) / 1_000
