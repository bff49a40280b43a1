import type { HarnessManifest } from '../../supervisor/harness.ts'

const manifest: HarnessManifest = { id: 'claude-code', name: 'Claude Code', supportsTui: true }
export default manifest
