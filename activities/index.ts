import { bindActivities } from './bind.ts'
import { checkpointActivities } from './checkpoint.ts'
import type { ActivityDeps } from './deps.ts'
import { toFailure } from './failure.ts'
import { janitorActivities } from './janitor.ts'
import { poolActivities } from './pool.ts'
import { sandboxActivities } from './sandbox.ts'
import { sessionActivities } from './session.ts'
import { turnActivities } from './turn.ts'
import { webhookActivities } from './webhook.ts'

type Run = (...args: never[]) => Promise<unknown>

const translated = <T extends Record<string, Run>>(activities: T): T =>
  Object.fromEntries(
    Object.entries(activities).map(([name, run]) => [
      name,
      async (...args: never[]) => {
        try {
          return await run(...args)
        } catch (error) {
          throw toFailure(error)
        }
      },
    ]),
  ) as T

/** Everything that workflows have done for them. Each may be repeated at any moment, by any worker, and then finds what was done before. */
export const createActivities = (deps: ActivityDeps) =>
  translated({
    ...sessionActivities(deps),
    ...sandboxActivities(deps),
    ...bindActivities(deps),
    ...turnActivities(deps),
    ...checkpointActivities(deps),
    ...poolActivities(deps),
    ...janitorActivities(deps),
    ...webhookActivities(deps),
  })

export type Activities = ReturnType<typeof createActivities>
