import { describeConversation } from './conversation.ts'

describeConversation({ id: 'qwen-code', shell: 'run_shell_command', asking: (command) => `run ${command}` })
