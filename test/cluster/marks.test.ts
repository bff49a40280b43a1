import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { eventually } from './namespace.ts'
import { sharedKubeconfig } from './shared.ts'
import { becomesReady, createWorld, type World } from './world.ts'

describe.each(['sandbox', 'pod'] as const)('with K8S_SANDBOX_API=%s', (api) => {
  let world: World

  beforeAll(async () => {
    world = await createWorld({ kubeconfig: sharedKubeconfig(), api })
  })
  afterAll(async () => {
    await world?.[Symbol.asyncDispose]()
  })

  test('marks that are missing, or came late over a claim, are seen and made good', async () => {
    const { driver, kube } = world
    const [warm, claimed] = [world.spec({ purpose: 'pool' }), world.spec()]
    await Promise.all([driver.create(warm), driver.create(claimed)])
    await Promise.all([becomesReady(driver, warm.name), becomesReady(driver, claimed.name)])
    await driver.markClaimed(claimed.name, 'session-4')
    const marks = async () =>
      new Map((await driver.list()).map(({ name, isMarked, sessionId }) => [name, { isMarked, sessionId }]))
    const good = [
      [warm.name, { isMarked: true, sessionId: null }],
      [claimed.name, { isMarked: true, sessionId: 'session-4' }],
    ]
    expect([...(await marks())]).toEqual(expect.arrayContaining(good))
    const metadata = { labels: { 'lap/state': 'ready' }, annotations: { 'lap/pod-uid': null } }
    for (const { name } of [warm, claimed]) {
      await kube.patch(world.path('object', name), { metadata })
      await kube.patch(world.path('pod', name), { metadata })
    }
    for (const { name } of [warm, claimed])
      expect((await marks()).get(name)).toEqual({ isMarked: false, sessionId: null })
    // The UID comes from the copy, which is a moment behind.
    const whole = async (): Promise<boolean> => {
      await Promise.all([driver.markReady(warm.name), driver.markClaimed(claimed.name, 'session-4')])
      const now = await marks()
      return good.every(([name]) => now.get(name as string)?.isMarked === true)
    }
    await eventually(whole, Boolean)
    expect([...(await marks())]).toEqual(expect.arrayContaining(good))
    await Promise.all([driver.remove(warm.name), driver.remove(claimed.name)])
  })
})
