/**
 * Demand for warm sandboxes. Each claim orders one replacement and a miss is served elsewhere, so a pool is an (S−1, S) base-stock system
 * with emergency supply: for Poisson arrivals and any lead time its miss rate is the Erlang loss formula (S. A. Smith, "Optimal inventories for an
 * (S−1, S) system with no backorders", 1977).
 */

/**
 * Probability that a claim finds the pool empty.
 * @param size sandboxes kept; whole number ≥ 0
 * @param load offered load: arrival rate × lead time, same unit of time
 */
export const erlangB = (size: number, load: number): number => {
  if (load <= 0) return 0
  let blocked = 1
  for (let n = 1; n <= size; n++) blocked = (load * blocked) / (n + load * blocked)
  return blocked
}

/** Misses per hour that one more sandbox would save. */
export const marginalBenefit = (size: number, demand: { perHour: number; leadTimeMs: number }): number => {
  const load = (demand.perHour * demand.leadTimeMs) / 3_600_000
  // With no load every formula gives 0; the first sandbox still serves whoever comes.
  return demand.perHour * (erlangB(size, load) - erlangB(size + 1, load))
}
