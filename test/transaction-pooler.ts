import { once } from 'node:events'
import net from 'node:net'
import pg from 'pg'

type Server = net.Socket

/** Calls back for each whole message `type, length, body` of one direction; the pieces come as the network likes. */
const messages = (onMessage: (message: Buffer, type: string) => void): ((chunk: Buffer) => void) => {
  let rest = Buffer.alloc(0)
  return (chunk) => {
    rest = Buffer.concat([rest, chunk])
    while (rest.length >= 5 && rest.length >= 1 + rest.readInt32BE(1)) {
      const end = 1 + rest.readInt32BE(1)
      const message = rest.subarray(0, end)
      rest = rest.subarray(end)
      onMessage(message, String.fromCharCode(message[0]!))
    }
  }
}

const message = (type: string, body: Buffer): Buffer => {
  const head = Buffer.alloc(5)
  head.write(type)
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}

/** Authenticated, ready, in a transaction block or not: what a server says after the start. */
const GREETING = Buffer.concat([
  message('R', Buffer.alloc(4)),
  message('S', Buffer.from('client_encoding\0UTF8\0')),
  message('Z', Buffer.from('I')),
])

/** Connections to the real server, already authenticated. */
const connectServer = async (url: string): Promise<{ socket: Server; close(): void }> => {
  const client = new pg.Client({ connectionString: url, application_name: 'pooler' })
  // It takes the socket for lost when that is closed.
  client.on('error', () => {})
  await client.connect()
  const socket = (client as unknown as { connection: { stream: net.Socket } }).connection.stream
  socket.removeAllListeners('data')
  return { socket, close: () => socket.destroy() }
}

/**
 * A transaction pooler like PgBouncer in front of a real Postgres: a client has a server's connection only while its transaction lasts.
 * @param pick which idle server comes next: the one used last (PgBouncer's way), or each in turn
 */
export const startTransactionPooler = async (
  url: string,
  { servers = 2, pick = 'last' }: { servers?: number; pick?: 'last' | 'in turn' } = {},
): Promise<AsyncDisposable & { url: string }> => {
  const all = await Promise.all(Array.from({ length: servers }, () => connectServer(url)))
  const idle = all.map(({ socket }) => socket)
  const waiting: ((server: Server) => void)[] = []
  const release = (server: Server): void => {
    const next = waiting.shift()
    if (next === undefined) idle.push(server)
    else next(server)
  }
  const take = (then: (server: Server) => void): void => {
    const server = pick === 'last' ? idle.pop() : idle.shift()
    if (server === undefined) waiting.push(then)
    else then(server)
  }

  const serve = (client: net.Socket): void => {
    let server: Server | null = null
    let held: Buffer[] | null = null
    const give = (got: Server): void => {
      server = got
      const fromServer = messages((part, type) => {
        client.write(part)
        if (type !== 'Z' || part[5] !== 'I'.charCodeAt(0)) return
        got.off('data', fromServer)
        server = null
        release(got)
      })
      got.on('data', fromServer)
      held!.splice(0).forEach((part) => got.write(part))
      held = null
    }
    const fromClient = messages((part, type) => {
      if (type === 'X') return
      if (server !== null) server.write(part)
      else if (held !== null) held.push(part)
      else {
        held = [part]
        take(give)
      }
    })
    client.once('data', function start(first: Buffer) {
      if (first.readInt32BE(4) === 80_877_103) {
        client.write('N')
        client.once('data', start)
        return
      }
      client.write(GREETING)
      client.on('data', fromClient)
    })
    client.on('error', () => {})
  }

  const clients = new Set<net.Socket>()
  const listener = net.createServer((client) => {
    clients.add(client)
    serve(client)
  })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const through = new URL(url)
  through.host = `127.0.0.1:${(listener.address() as net.AddressInfo).port}`
  return {
    url: through.href,
    async [Symbol.asyncDispose]() {
      clients.forEach((client) => client.destroy())
      all.forEach((one) => one.close())
      listener.close()
      await once(listener, 'close')
    },
  }
}
