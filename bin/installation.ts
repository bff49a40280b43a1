import { setTimeout as sleep } from 'node:timers/promises'
import { installationId } from '../db/installation.ts'
import type { Sql } from '../db/sql.ts'
import { errorText } from '../domain/errors.ts'
import type { Problem } from '../sandbox/inspector.ts'

const askAgainMs = 1_000

export type AwaitOptions = { signal: AbortSignal; onProblems: (problems: Problem[]) => void }

/** The id of this installation. Waits for the database, and for its migrations, which may come later than this process. */
export const awaitInstallation = async (sql: Sql, { signal, onProblems }: AwaitOptions): Promise<string> => {
  for (;;) {
    try {
      const id = await installationId(sql)
      onProblems([])
      return id
    } catch (error) {
      onProblems([
        {
          what: 'The database does not say which installation this is.',
          detail: errorText(error),
          remedy: 'Check that the server of DATABASE_URL runs, and that the migrations have run (node bin/migrate.ts).',
        },
      ])
    }
    await sleep(askAgainMs, undefined, { signal })
  }
}
