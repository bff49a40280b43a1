import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** A connection as Postgres lists it. */
export type PostgresConnection = { name: string; state: string }

type Query = (text: string, params: unknown[]) => Promise<PostgresConnection[]>

const socketsOf = (pid: number): Set<string> =>
  new Set(
    readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? []
      } catch {
        // Closed since the folder was read.
        return []
      }
    }),
  )

/** https://docs.kernel.org/networking/proc_net_tcp.html: the second column is the own address, the tenth the socket. */
const portsOf = (pid: number): number[] => {
  const sockets = socketsOf(pid)
  return ['tcp', 'tcp6'].flatMap((table) =>
    readFileSync(`/proc/${pid}/net/${table}`, 'utf8')
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .flatMap((columns) =>
        sockets.has(columns[9] ?? '') ? [Number.parseInt(columns[1]?.split(':')[1] ?? '', 16)] : [],
      ),
  )
}

/** The connections to Postgres that a process of this machine has open: those that come from its ports. */
export const connectionsOf = (pid: number, query: Query): Promise<PostgresConnection[]> =>
  query('select application_name as name, state from pg_stat_activity where client_port = any($1)', [portsOf(pid)])
