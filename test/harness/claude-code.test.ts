import { describeTerminal } from './terminal.ts'

describeTerminal({
  id: 'claude-code',
  prompt: /^❯\s*$/m,
  asking: (command) => `run ${command}`,
  question: /Do you want to proceed\?/,
})
