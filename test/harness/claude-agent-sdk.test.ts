import { describeConversation } from './conversation.ts'

describeConversation({ id: 'claude-agent-sdk', shell: 'Bash', asking: (command) => `run ${command}` })
