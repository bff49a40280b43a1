/** The workflows, under the names by which they are started (`WORKFLOWS` in messages.ts). */
export { janitor } from './janitor.ts'
export { pool } from './pool.ts'
export { session } from './session.ts'
export { webhook } from './webhook.ts'
