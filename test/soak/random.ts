/** Random numbers that a seed repeats (mulberry32). */
export type Random = {
  /** From 0 to below `limit`, whole. */
  below(limit: number): number
  /** From `low` to below `high`, whole. */
  between(low: number, high: number): number
}

export const createRandom = (seed: number): Random => {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  return {
    below: (limit) => Math.floor(next() * limit),
    between: (low, high) => low + Math.floor(next() * (high - low)),
  }
}
