import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'

/**
 * Below the range that systems take the ports of outgoing connections from, and below that of a cluster's node ports, so that a free one is still free when it is
 * used.
 */
const LOWEST = 12_000
const HIGHEST = 30_000

/** A TCP port of the loopback that nobody listens on now. */
export const freePort = async (): Promise<number> => {
  for (;;) {
    const port = randomInt(LOWEST, HIGHEST)
    if (await isFree(port)) return port
  }
}

/** Whether this process could listen there; on the loopback if no host is given. */
export const isFree = (port: number, host = '127.0.0.1'): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, host, () => server.close(() => resolve(true)))
  })
