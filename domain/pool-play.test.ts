import { expect, test } from '@jest/globals'
import { plan, shares } from './pool.ts'
import type { AgentDemand, PooledSandbox } from './pool.ts'

/**
 * Many pools on one budget, played in steps of a second with the limits as they are held where a row is inserted: whatever comes, the decisions of each
 * pool alone must lead to the division that all agree on, and then to rest.
 */

const BUDGET = 6
const MAX_STARTING = 2
const START_SECONDS = 3
const TTL_SECONDS = 300
const WINDOW_SECONDS = 900

type Player = { demand: AgentDemand; template: string; sandboxes: PooledSandbox[]; want: number; uses: number[] }

const createPlay = (names: string[], seed: number) => {
  let state = seed
  const random = (): number => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647
  let second = 0
  let made = 0
  const at = (s: number): Date => new Date(s * 1_000)
  const players = names.map((name): Player => ({
    demand: {
      agentId: name,
      deleted: false,
      recent: false,
      lastSessionAt: null,
      perHour: 0,
      leadTimeMs: START_SECONDS * 1_000,
      health: { failures: 0, backoffUntil: null, breakerOpen: false, breakerReason: null },
    },
    template: `${name}-0`,
    sandboxes: [],
    want: 0,
    uses: [],
  }))
  const all = (): PooledSandbox[] => players.flatMap(({ sandboxes }) => sandboxes)
  const held = (): number => all().filter(({ retiring }) => !retiring).length
  const starting = (): number => all().filter((one) => one.state === 'provisioning').length

  const demandOf = (player: Player): AgentDemand => ({
    ...player.demand,
    recent: player.uses.length > 0 && second - player.uses.at(-1)! < WINDOW_SECONDS,
    lastSessionAt: player.uses.length === 0 ? null : at(player.uses.at(-1)!),
    perHour: player.uses.filter((use) => use > second - 3_600).length,
    leadTimeMs: player.demand.leadTimeMs * (0.8 + 0.4 * random()),
    held: player.sandboxes.filter((one) => one.state === 'provisioning' || !one.retiring).length,
  })

  const divide = (): Map<string, number> => shares(players.map(demandOf), BUDGET, at(second))

  const reserve = (player: Player): boolean => {
    if (held() >= BUDGET || starting() >= MAX_STARTING) return false
    const id = `sandbox-${made++}`
    const createdAt = at(second)
    player.sandboxes.push({
      id,
      state: 'provisioning',
      templateHash: player.template,
      createdAt,
      readyAt: null,
      retiring: false,
    })
    return true
  }

  /** One look of one pool. @returns how much it changed */
  const look = (player: Player): number => {
    const planned = plan(
      {
        share: divide().get(player.demand.agentId) ?? 0,
        budget: BUDGET,
        agent: demandOf(player),
        templateHash: player.template,
        ttlMs: TTL_SECONDS * 1_000,
        sandboxes: player.sandboxes,
        wantedElsewhere: players.reduce((sum, other) => sum + (other === player ? 0 : other.want), 0),
      },
      at(second),
    )
    const retired = new Set(planned.retire.map(({ id }) => id))
    player.sandboxes = player.sandboxes.filter(({ id }) => !retired.has(id))
    let started = 0
    for (const id of planned.replace) {
      const old = player.sandboxes.find((one) => one.id === id)!
      old.retiring = true
      if (reserve(player)) started++
      else old.retiring = false
    }
    player.want = 0
    for (let i = 0; i < planned.provision; i++)
      if (reserve(player)) started++
      else player.want++
    return retired.size + started
  }

  return {
    players,
    random,
    divide,
    held,
    starting,
    use(player: Player): void {
      player.uses.push(second)
      const warm = player.sandboxes.findIndex((one) => one.state === 'warm' && one.templateHash === player.template)
      if (warm >= 0) player.sandboxes.splice(warm, 1)
    },
    /** A second goes by: starts end, every pool looks. @returns how much was changed */
    step(): number {
      second++
      for (const one of all())
        if (one.state === 'provisioning' && second - one.createdAt.getTime() / 1_000 >= START_SECONDS)
          Object.assign(one, { state: 'warm', readyAt: at(second) })
      return players.reduce((changes, player) => changes + look(player), 0)
    },
  }
}

test.each([1, 2, 3, 4, 5])('pools on one budget never exceed it, come to their shares, and rest (play %i)', (seed) => {
  const play = createPlay(['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'], seed * 7_919)
  for (let i = 0; i < 1_500; i++) {
    for (const player of play.players) {
      const rate = player.demand.agentId < 'c' ? 0.05 : 0.002
      if (play.random() < rate) play.use(player)
      if (play.random() < 0.0005) player.template = `${player.template}+`
      if (play.random() < 0.0002) player.demand.deleted = true
    }
    play.step()
    expect(play.held()).toBeLessThanOrEqual(BUDGET)
    expect(play.starting()).toBeLessThanOrEqual(MAX_STARTING)
  }
  // Nobody comes any more: half a minute later each has its share, warm.
  for (let i = 0; i < 30; i++) play.step()
  const division = play.divide()
  for (const { demand, sandboxes, template } of play.players) {
    const serving = sandboxes.filter((one) => one.state === 'warm' && !one.retiring)
    expect({ agent: demand.agentId, warm: serving.length }).toEqual({
      agent: demand.agentId,
      warm: division.get(demand.agentId),
    })
    expect(serving.every(({ templateHash }) => templateHash === template)).toBe(true)
  }
  // And nothing is moved about for the wavering of what is measured.
  let changes = 0
  for (let i = 0; i < 60; i++) changes += play.step()
  // Replacements by age: each is a start and an end.
  expect(changes).toBeLessThanOrEqual(2 * BUDGET)
  // When the last one is out of the window nothing is left.
  for (let i = 0; i < WINDOW_SECONDS + 60; i++) play.step()
  expect(play.players.flatMap(({ sandboxes }) => sandboxes)).toEqual([])
})
