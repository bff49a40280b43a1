import type { HarnessManifest } from '../../supervisor/harness.ts'
import { createOpencode } from './driver.ts'

const manifest: HarnessManifest = { id: 'opencode', name: 'opencode', supportsTui: false, create: createOpencode }
export default manifest
