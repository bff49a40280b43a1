import type { Stack } from './stack.ts'
import { eventsOf, type LogEvent, turnsOf } from './world.ts'
import { until } from '../until.ts'

/** What is seen of sessions that lose their sandbox, and of what they take along. */

/** Events of a type in the log of a session. */
export const told = async (stack: Stack, id: string, type: string): Promise<LogEvent[]> =>
  (await eventsOf(stack, id)).filter((event) => event.type === type)

/** Waits until a checkpoint stands behind its last turn. */
export const hasCheckpoint = (stack: Stack, id: string, deadlineMs = 90_000): Promise<LogEvent> =>
  until(`${id} has a checkpoint`, deadlineMs, async () => {
    const turn = (await turnsOf(stack, id)).at(-1)
    return (await told(stack, id, 'checkpoint.stored')).find(({ data }) => data['turn_id'] === turn?.id)
  })

/** Waits until it is ready in its `attempt`th sandbox. */
export const hasMoved = (stack: Stack, id: string, attempt: number, deadlineMs = 90_000): Promise<LogEvent> =>
  until(`${id} is at attempt ${attempt}`, deadlineMs, async () =>
    (await told(stack, id, 'sandbox_moved')).find(({ data }) => data['attempt'] === attempt),
  )
