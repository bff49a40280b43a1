import type { Machine } from './machine.ts'
import { COLD_START } from './scenarios/opencode.ts'
import { FLOOR, HTTP_AND_SQL } from './scenarios/floor.ts'
import { type Bases, type Figure, percentile } from './stats.ts'

/** The file that a run leaves: everything that was measured. */
export type Results = { started_at: string; quick: boolean; machine: Machine; figures: Figure[] }

const medianOf = (figures: Figure[], name: string): number | null => {
  const figure = figures.find((one) => one.name === name)
  return figure === undefined ? null : percentile(figure.samples, 50)
}

/** What the ratios of a run refer to, as far as it was measured. */
export const basesOf = (figures: Figure[]): Bases => ({
  httpAndSql: medianOf(figures, HTTP_AND_SQL),
  floor: medianOf(figures, FLOOR),
  cold: medianOf(figures, COLD_START),
})
