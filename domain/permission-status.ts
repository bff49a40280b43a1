/**
 * What becomes of a question of a harness:
 *
 *   open ──► allowed | denied     somebody answered
 *     ├────► expired              nobody answered in time: the harness is told no
 *     └────► cancelled            its turn ended, or its session: nobody waits for an answer any more
 */
export const PERMISSION_STATUSES = ['open', 'allowed', 'denied', 'expired', 'cancelled'] as const
export type PermissionStatus = (typeof PERMISSION_STATUSES)[number]
