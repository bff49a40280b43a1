import { AppError } from '../domain/errors.ts'
import type { Sql } from './sql.ts'

/**
 * The id of this installation, random and as old as its database.
 * @throws AppError `unavailable` while the database does not answer, `conflict` when it has no row
 */
export const installationId = async (sql: Sql): Promise<string> => {
  const row = await sql.one<{ id: string }>('select id from installation')
  if (row === null) throw new AppError('conflict', 'The table installation is empty')
  return row.id
}
