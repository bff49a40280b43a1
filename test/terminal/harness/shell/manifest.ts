import type { HarnessManifest } from '../../../../supervisor/harness.ts'

/** Bash, as a harness of a terminal. Its system prompt it can only be told at its start. */
const manifest: HarnessManifest = {
  id: 'shell',
  name: 'Shell',
  supportsTui: true,
  terminal: ({ gateway }, { system }) => ({
    command: ['/bin/bash', '--norc', '--noprofile', '-i'],
    env: {
      PS1: '$ ',
      HISTFILE: '',
      LC_ALL: 'C.UTF-8',
      MODELS: gateway.url,
      MODELS_KEY: gateway.key,
      ...(system === null ? {} : { SYSTEM_PROMPT: system }),
    },
    takesPrompts: false,
    files: { 'told.txt': system ?? 'nothing' },
  }),
}
export default manifest
