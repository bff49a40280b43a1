import { connect, createServer, type Socket } from 'node:net'

/** A TCP proxy whose connections can be cut or held, to be a bad network. */
export type Proxy = AsyncDisposable & {
  port: number
  cuts: number
  /** Connections stay open and carry nothing, new ones too, until `release`. */
  hold(): void
  release(): void
  /** Cuts every connection that is open. */
  cutAll(): void
  /** From now on, a connection is cut when `shouldCut` says so for bytes that come back; it gets how many came on this connection before. */
  cutWhen(shouldCut: ((bytesBefore: number) => boolean) | null): void
}

type Pair = { near: Socket; far: Socket }

/** @param targets ports; with several of them, connections go to one after the other */
export const startProxy = async (...targets: [number, ...number[]]): Promise<Proxy> => {
  const pairs = new Set<Pair>()
  let isHeld = false
  let shouldCut: ((bytesBefore: number) => boolean) | null = null
  const end = (pair: Pair): void => {
    pairs.delete(pair)
    pair.near.destroy()
    pair.far.destroy()
  }
  let connections = 0
  const server = createServer((near) => {
    const far = connect(targets[connections++ % targets.length] ?? targets[0], '127.0.0.1')
    const pair = { near, far }
    pairs.add(pair)
    let bytes = 0
    near.on('data', (chunk) => far.write(chunk))
    far.on('data', (chunk) => {
      if (shouldCut?.(bytes) === true) {
        // Half a chunk goes through: what is cut is not the space between two frames.
        near.write(chunk.subarray(0, Math.floor(chunk.length * Math.random())), () => end(pair))
        far.pause()
        proxy.cuts++
        return
      }
      bytes += chunk.length
      near.write(chunk)
    })
    for (const socket of [near, far]) {
      socket.on('error', () => end(pair))
      socket.on('close', () => end(pair))
      if (isHeld) socket.pause()
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const proxy: Proxy = {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    cuts: 0,
    hold: () => {
      isHeld = true
      for (const { near, far } of pairs) [near, far].forEach((socket) => socket.pause())
    },
    release: () => {
      isHeld = false
      for (const { near, far } of pairs) [near, far].forEach((socket) => socket.resume())
    },
    cutAll: () => {
      proxy.cuts += pairs.size
      for (const pair of pairs) end(pair)
    },
    cutWhen: (when) => {
      shouldCut = when
    },
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const pair of pairs) end(pair)
      }),
  }
  return proxy
}
