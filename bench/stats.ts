export type Unit = 'ms' | 'per second' | 'MB' | 'connections'

/** What a figure should reach. For times, memory and connections the most it may be, for rates the least. */
export type Reach = { p50?: number; p95?: number; p99?: number; max?: number }

/**
 * Samples of one figure. `base`: the ratios of a table refer to this one's median. `cold`: name of the figure of the same run that is its cold start, where that
 * is not the one of the whole table.
 */
export type Figure = {
  name: string
  unit?: Unit
  samples: number[]
  reach?: Reach
  base?: keyof Bases
  cold?: string
}

/** Medians that the ratios of a table refer to, in milliseconds; one that was not measured is null. */
export type Bases = { httpAndSql: number | null; floor: number | null; cold: number | null }

/** Nearest-rank percentile of unsorted samples; NaN for none. */
export const percentile = (samples: number[], p: number): number => {
  const sorted = samples.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil((p / 100) * sorted.length) - 1)] ?? Number.NaN
}

const PERCENTILES = { p50: 50, p90: 90, p95: 95, p99: 99, max: 100 } as const

/** The reaches of a figure that were missed, for instance `p99 112 > 90`. */
export const missed = ({ samples, reach = {}, unit = 'ms' }: Figure): string[] =>
  (['p50', 'p95', 'p99', 'max'] as const).flatMap((at) => {
    const bound = reach[at]
    if (bound === undefined || samples.length === 0) return []
    const value = percentile(samples, PERCENTILES[at])
    const holds = unit === 'per second' ? value >= bound : value <= bound
    return holds ? [] : [`${at} ${short(value)} ${unit === 'per second' ? '<' : '>'} ${bound}`]
  })

const short = (value: number): string => {
  if (Number.isNaN(value)) return '–'
  if (value >= 100) return value.toFixed(0)
  return value >= 10 ? value.toFixed(1) : value.toFixed(2)
}

const ratio = (value: number, base: number | null): string => {
  if (base === null || Number.isNaN(value / base)) return '–'
  const times = value / base
  return `${times >= 100 ? times.toFixed(0) : times.toPrecision(2)}×`
}

const reachOf = (figure: Figure): string => {
  const { reach, samples, unit } = figure
  if (reach === undefined) return ''
  const order = unit === 'per second' ? '≥' : '≤'
  const bounds = Object.entries(reach).map(([at, bound]) => `${at} ${order} ${bound}`)
  const verdict = samples.length === 0 ? '' : missed(figure).length === 0 ? ' ✓' : ' ✗'
  return `${bounds.join(', ')}${verdict}`
}

const HEAD = ['figure', 'unit', 'n', 'p50', 'p90', 'p95', 'p99', 'max', '/ http+sql', '/ floor', '/ cold', 'reach']
const LEFT = new Set(['figure', 'unit', 'reach'])

/** What the ratios of a run refer to, as far as it was measured. */
export const basesOf = (figures: Figure[]): Bases => {
  const medianOf = (base: keyof Bases): number | null => {
    const figure = figures.find((one) => one.base === base)
    return figure === undefined ? null : percentile(figure.samples, 50)
  }
  return { httpAndSql: medianOf('httpAndSql'), floor: medianOf('floor'), cold: medianOf('cold') }
}

/** The table of one run: each figure with the ratios of its median to the floors and to the cold start of the same run. */
export const table = (figures: Figure[], bases: Bases): string => {
  const coldOf = ({ cold }: Figure): number | null => {
    if (cold === undefined) return bases.cold
    const figure = figures.find(({ name }) => name === cold)
    return figure === undefined ? null : percentile(figure.samples, 50)
  }
  const rows = figures.map((figure) => {
    const { name, samples, unit = 'ms' } = figure
    const at = (p: number): number => percentile(samples, p)
    const ratios = [bases.httpAndSql, bases.floor, coldOf(figure)].map((base) =>
      unit === 'ms' ? ratio(at(50), base) : '',
    )
    const values = Object.values(PERCENTILES).map((p) => short(at(p)))
    return [name, unit, String(samples.length), ...values, ...ratios, reachOf(figure)]
  })
  const all = [HEAD, ...rows]
  const widths = HEAD.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)))
  const line = (row: string[]): string =>
    row
      .map((cell, i) => (LEFT.has(HEAD[i] ?? '') ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join('  ')
      .trimEnd()
  return [line(HEAD), widths.map((width) => '─'.repeat(width)).join('──'), ...rows.map(line)].join('\n')
}

/** How long the work took, in milliseconds. */
export const elapsed = async (work: () => Promise<unknown>): Promise<number> => {
  const start = performance.now()
  await work()
  return performance.now() - start
}

/** One after the other: `count` results of `work`. */
export const inTurn = async <T>(count: number, work: (i: number) => Promise<T>): Promise<T[]> => {
  const results: T[] = []
  for (let i = 0; i < count; i++) results.push(await work(i))
  return results
}

/** All at once: `count` results of `work`. */
export const atOnce = <T>(count: number, work: (i: number) => Promise<T>): Promise<T[]> =>
  Promise.all(Array.from({ length: count }, (_, i) => work(i)))
