/** What stands behind the fake pods of the cluster, in a process of its own, so that it takes nothing from the clock of whoever measures. */
import { parseArgs } from 'node:util'
import { startSandboxController } from '../../test/cluster/sandbox-controller.ts'
import { startSupervisors } from '../../test/cluster/supervisors.ts'

process.once('disconnect', () => process.exit())
const { values } = parseArgs({
  options: { kubeconfig: { type: 'string', default: '' }, namespace: { type: 'string', default: '' } },
})
const { kubeconfig, namespace } = values
await startSupervisors({ kubeconfig, namespace })
await startSandboxController({ kubeconfig, namespace })
process.send?.('ready')
