import { describeTerminal } from './terminal.ts'

/** Codex asks where the model asks for more than its sandbox allows. */
const escalated = (cmd: string): string =>
  `call exec_command ${JSON.stringify({ cmd, sandbox_permissions: 'require_escalated', justification: 'May I?' })}`

describeTerminal({
  id: 'codex-terminal',
  asking: escalated,
  question: /Would you like to run/,
})
