import path from 'node:path'
import type { HarnessManifest } from '../../../../supervisor/harness.ts'

/** An agent whose failures are arranged by a test: `agent.ts` says how. */
const manifest: HarnessManifest = {
  id: 'scripted-acp',
  name: 'Scripted agent',
  supportsTui: false,
  acp: ({ dir, gateway }) => ({
    command: [process.execPath, path.join(dir, 'agent.ts')],
    env: { GATEWAY_URL: gateway.url, GATEWAY_KEY: gateway.key },
    modes: { unattended: 'all', asking: 'ask' },
  }),
}
export default manifest
