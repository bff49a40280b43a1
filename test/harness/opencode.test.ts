import { describeConversation } from './conversation.ts'

describeConversation({ id: 'opencode', shell: 'bash', asking: (command) => `run ${command}` })
