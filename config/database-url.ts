const POOLED =
  'points at a connection pooler: give the direct connection, because migrations hold a session lock, which a transaction pooler loses between statements'

/**
 * What is wrong with a PostgreSQL URL, as far as the text tells; null if nothing. Poolers are known by their port (PgBouncer 6432, Supavisor 6543),
 * their host (Neon's `-pooler.`) or their parameter (`pgbouncer=true`). A pooler behind an ordinary address is found by behaviour, in `db/`.
 * The URL itself is never part of the answer: it holds a password.
 */
export const databaseUrlProblem = (text: string): string | null => {
  const url = URL.parse(text)
  if (url === null || !/^postgres(ql)?:$/.test(url.protocol)) return 'must be a postgresql:// URL'
  if (url.hostname === '' && !url.searchParams.has('host')) return 'must name a host'
  if (url.pathname.length < 2) return 'must name a database after the host'
  const host = url.hostname || (url.searchParams.get('host') ?? '')
  const port = url.port || url.searchParams.get('port')
  if (port === '6432' || (port === '6543' && host.includes('pooler'))) return `${POOLED} (port ${port})`
  if (host.includes('-pooler.')) return `${POOLED} (host name with -pooler)`
  if (url.searchParams.get('pgbouncer') === 'true') return `${POOLED} (pgbouncer=true)`
  return null
}
