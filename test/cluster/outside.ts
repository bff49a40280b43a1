import { connect } from 'node:net'
import { once } from 'node:events'
import { endProcess, startProcess } from '../../tools/dev/process.ts'
import { run } from '../../tools/image/run.ts'
import { until } from '../until.ts'

const LINK = { here: '10.254.254.1', there: '10.254.254.2' }

const answering = (ports: number[]): string =>
  `for (const port of ${JSON.stringify(ports)}) require('node:net').createServer((socket) => socket.end('hello')).listen(port, '0.0.0.0')`

/** A network beside this machine, with machines at these IPv4 addresses that answer at any of the ports. Pods of a real node reach it through the machine. */
export const startOutside = async (addresses: string[], ports: number[]): Promise<AsyncDisposable> => {
  const name = `lap${process.pid}`
  const ip = (text: string): Promise<string> => run('ip', text.split(' '))
  const within = (text: string): Promise<string> => ip(`-n ${name} ${text}`)
  await using cleanup = new AsyncDisposableStack()
  await ip(`netns add ${name}`)
  // The link ends with it, and the routes with the link.
  cleanup.defer(async () => void (await ip(`netns delete ${name}`)))
  await ip(`link add ${name} type veth peer name there netns ${name}`)
  await ip(`address add ${LINK.here}/30 dev ${name}`)
  await ip(`link set ${name} up`)
  await within(`address add ${LINK.there}/30 dev there`)
  await within('link set there up')
  await within('link set lo up')
  await within(`route add default via ${LINK.here}`)
  for (const address of addresses) {
    await within(`address add ${address}/32 dev lo`)
    await ip(`route add ${address}/32 via ${LINK.there}`)
  }
  const args = ['netns', 'exec', name, process.execPath, '-e', answering(ports)]
  const { record } = await startProcess('ip', args, { stdio: 'ignore' })
  cleanup.defer(() => endProcess(record, 'SIGKILL', 5_000))
  await until('the outside answers', 10_000, async () => {
    const socket = connect(ports[0] ?? 0, addresses[0])
    await once(socket, 'connect')
    return socket.destroy()
  })
  const kept = cleanup.move()
  return { [Symbol.asyncDispose]: () => kept.disposeAsync() }
}

/** For `node -e`: prints which of these, as `address:port`, answer. */
export const asking = (targets: string[]): string =>
  `Promise.all(${JSON.stringify(targets)}.map((target) => new Promise((resolve) => {
    const [host, port] = target.split(':')
    const socket = require('node:net').connect({ host, port: Number(port), timeout: 4000 })
    const told = (answers) => resolve(socket.destroy() && answers ? [target] : [])
    socket.once('data', () => told(true)).once('error', () => told(false)).once('timeout', () => told(false))
  }))).then((all) => console.log(JSON.stringify(all.flat())))`
