import { describeTerminal } from './terminal.ts'

describeTerminal({
  id: 'claude-code',
  asking: (command) => `run ${command}`,
  question: /Do you want to proceed\?/,
})
