/** What the demo model answers: pure, from an OpenAI chat-completions request. */

export const DEMO_MODEL = 'demo'
const LABEL = '[demo model]'
/** Characters of a tool's output that are reported. */
const outputMaxChars = 8_000
const titleMaxChars = 50

type Part = { type: string; text?: string }
type ChatMessage = {
  role: string
  content?: string | Part[] | null
  tool_calls?: { id: string; function: { name: string; arguments: string } }[]
  tool_call_id?: string
}
type JsonSchema = { type?: string | string[]; enum?: unknown[]; minimum?: number }
type ChatTool = {
  type?: string
  function?: { name: string; parameters?: { properties?: Record<string, JsonSchema>; required?: string[] } }
}
export type ChatRequest = {
  model: string
  messages: ChatMessage[]
  tools?: ChatTool[]
  stream?: boolean
  stream_options?: { include_usage?: boolean }
}

export type DemoReply = { type: 'text'; text: string } | { type: 'tool_call'; name: string; arguments: string }

const textOf = (message: ChatMessage): string => {
  const { content } = message
  if (typeof content === 'string') return content
  return (content ?? []).flatMap((part) => (part.type === 'text' ? [part.text ?? ''] : [])).join('\n')
}

/** Harnesses put reminders of their own into the user's message, between tags. */
const withoutReminders = (text: string): string =>
  text.replace(/<(system-reminder|environment_details|environment_context)>[\s\S]*?<\/\1>/g, '').trim()

/** The last message in which the user says something, and what came after it. */
const lastWordOfUser = (messages: ChatMessage[]): { text: string; after: ChatMessage[] } => {
  for (let index = messages.length - 1; index >= 0; index--) {
    const message = messages[index]
    if (message?.role !== 'user') continue
    const text = withoutReminders(textOf(message))
    if (text !== '') return { text, after: messages.slice(index + 1) }
  }
  return { text: '', after: [] }
}

const commandIn = (text: string): string | null => {
  const line = text
    .split('\n')
    .map((each) => each.trim())
    .findLast((each) => each.startsWith('$ '))
  return line === undefined ? null : line.slice(2).trim() || null
}

const SHELL_NAMES = /^(bash|shell|sh|terminal|exec|execute|run)([_-]?(command|tool|bash|shell))?$/i

const shellTool = (tools: ChatTool[]): NonNullable<ChatTool['function']> | null => {
  const functions = tools.flatMap((tool) =>
    tool.function !== undefined && 'command' in (tool.function.parameters?.properties ?? {}) ? [tool.function] : [],
  )
  return functions.find(({ name }) => SHELL_NAMES.test(name)) ?? null
}

const typeOf = (schema: JsonSchema | undefined): string | undefined =>
  Array.isArray(schema?.type) ? schema.type[0] : schema?.type

/** A value that a required argument accepts; shell tools ask for a description, some for a time-out. */
const fillIn = (schema: JsonSchema | undefined): unknown => {
  if (schema?.enum !== undefined) return schema.enum[0]
  const type = typeOf(schema)
  if (type === 'number' || type === 'integer') return Math.max(schema?.minimum ?? 0, 60_000)
  if (type === 'boolean') return false
  if (type === 'array') return []
  return 'Run the command that the user gave'
}

const callShell = (tool: NonNullable<ChatTool['function']>, command: string): DemoReply => {
  const { properties = {}, required = [] } = tool.parameters ?? {}
  const args: Record<string, unknown> = {}
  for (const name of required) args[name] = fillIn(properties[name])
  args['command'] = typeOf(properties['command']) === 'array' ? ['bash', '-lc', command] : command
  return { type: 'tool_call', name: tool.name, arguments: JSON.stringify(args) }
}

const shorten = (text: string, max: number): string => (text.length <= max ? text : `${text.slice(0, max - 1)}…`)
const say = (text: string): DemoReply => ({ type: 'text', text: `${LABEL} ${text}` })

/** Harnesses ask for a title of the conversation in a request of its own, without tools. */
const wantsTitle = ({ messages, tools }: ChatRequest): boolean =>
  (tools ?? []).length === 0 &&
  messages.some(
    (message) =>
      message.role !== 'assistant' && /\b(title generator|generate a (short )?title)\b/i.test(textOf(message)),
  )

/**
 * Repeats what the user said. If a line of it starts with `$ `, the last such line is a command: it is given to the harness's shell tool, and the
 * output is reported.
 */
export const demoReply = (request: ChatRequest): DemoReply => {
  const { text, after } = lastWordOfUser(request.messages)
  if (wantsTitle(request)) {
    const topic = text.replace(/^generate a (short )?title[^\n]*\n?/i, '').trim()
    return say(shorten(topic.split('\n')[0] || 'conversation', titleMaxChars))
  }
  const command = commandIn(text)
  if (command === null) return say(text === '' ? 'You said nothing.' : `You said: ${text}`)
  const output = after.findLast((message) => message.role === 'tool')
  if (output !== undefined)
    return say(`\`${command}\` printed:\n\n\`\`\`\n${shorten(textOf(output).trimEnd(), outputMaxChars)}\n\`\`\``)
  const tool = shellTool(request.tools ?? [])
  if (tool === null) return say(`There is no shell tool here to run \`${command}\` with.`)
  return callShell(tool, command)
}

/** A token is about four characters; good enough for a demo, and never 0. */
export const tokensIn = (text: string): number => Math.max(1, Math.ceil(text.length / 4))
