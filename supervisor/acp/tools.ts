import type * as acp from '@agentclientprotocol/sdk/unstable'
import type { PermissionKind } from '../../domain/permission.ts'
import type { MessagePart } from '../../domain/turn.ts'

/** More of an output is for the model, not for a reader. */
const outputCharsMax = 200_000

/** The beginning of a text, and how long all of it is. */
type Kept = { text: string; chars: number }

/** A tool call of the agent, as far as it has been told. */
export type ToolCall = {
  name: string
  kind: acp.ToolKind
  title: string
  status: acp.ToolCallStatus
  input: unknown
  /** What it gave back, where the agent tells that as it is. */
  output: Kept | null
  /** What its terminal said: some agents tell that, and no output. */
  terminal: Kept
  /** What the agent shows of it. */
  shown: Kept
  diffs: object[]
  start: number
  end: number | null
}

type Fields = Record<string, unknown>

const fieldsOf = (value: unknown): Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {}
const textAt = (from: unknown, ...keys: string[]): string | undefined => {
  const value = keys.reduce<unknown>((at, key) => fieldsOf(at)[key], from)
  return typeof value === 'string' ? value : undefined
}

const isEmpty = (value: unknown): boolean => Object.keys(fieldsOf(value)).length === 0

/** A copy, because a part of a string holds all of it. */
const beginning = (text: string, max: number): string =>
  text.length <= max ? text : structuredClone(text.slice(0, max))
const kept = (text: string): Kept => ({ text: beginning(text, outputCharsMax), chars: text.length })
const longer = ({ text, chars }: Kept, more: string): Kept => ({
  text: text + beginning(more, outputCharsMax - text.length),
  chars: chars + more.length,
})
const shownText = ({ text, chars }: Kept): string =>
  chars <= outputCharsMax ? text : `${text}\n… (${chars} characters in all)`
const shortened = (text: string): string => shownText(kept(text))

export const newCall = (): ToolCall => ({
  name: '',
  kind: 'other',
  title: '',
  status: 'pending',
  input: {},
  output: null,
  terminal: kept(''),
  shown: kept(''),
  diffs: [],
  start: Date.now(),
  end: null,
})

/** Adds what an update tells. What it leaves out is as before. */
export const updateCall = (call: ToolCall, update: acp.ToolCallUpdate): void => {
  const { kind, title, status, content, rawInput, rawOutput, _meta: meta } = update
  call.name =
    update.name ?? textAt(meta, 'claudeCode', 'toolName') ?? textAt(meta, 'toolName') ?? (call.name || kind || 'tool')
  call.kind = kind ?? call.kind
  call.title = title ?? call.title
  call.status = status ?? call.status
  if (content != null) {
    call.shown = kept(unfenced(contentText(content)))
    call.diffs = diffsOf(content)
  }
  if (!isEmpty(rawInput)) call.input = rawInput
  if (rawOutput != null) call.output = rawText(rawOutput)
  call.terminal = longer(call.terminal, textAt(meta, 'terminal_output_delta', 'data') ?? '')
  const terminal = textAt(meta, 'terminal_output', 'data')
  if (terminal !== undefined) call.terminal = kept(terminal)
  if (call.status === 'completed' || call.status === 'failed') call.end ??= Date.now()
}

const contentText = (content: acp.ToolCallContent[]): string =>
  content
    .flatMap((each) => (each.type === 'content' && each.content.type === 'text' ? [each.content.text] : []))
    .join('\n')

/** Some show it as a block of code. */
const unfenced = (text: string): string => /^```\w*\n([\s\S]*?)\n?```$/.exec(text.trim())?.[1] ?? text

/** The result of a tool of an MCP server. */
const mcpText = (rawOutput: unknown): string | undefined => {
  const { result, content = fieldsOf(result)['content'] } = fieldsOf(rawOutput)
  if (!Array.isArray(content)) return undefined
  return content.flatMap((each: unknown) => textAt(each, 'text') ?? []).join('\n')
}

const rawText = (rawOutput: unknown): Kept | null => {
  const text =
    typeof rawOutput === 'string'
      ? rawOutput
      : (textAt(rawOutput, 'output') ?? textAt(rawOutput, 'text') ?? mcpText(rawOutput))
  return text === undefined ? null : kept(text)
}

/** What it gave back: as it is, where the agent tells that, else as it shows it. */
const outputOf = ({ output, terminal, shown }: ToolCall): string =>
  shownText(output ?? (terminal.chars > 0 ? terminal : shown))

const diffsOf = (content: acp.ToolCallContent[]): object[] =>
  content.flatMap((each) =>
    each.type === 'diff'
      ? [{ path: each.path, old_text: shortened(each.oldText ?? ''), new_text: shortened(each.newText) }]
      : [],
  )

/** The call as `state` of a tool part: https://opencode.ai/docs/sdk. */
export const stateOf = (call: ToolCall): MessagePart['state'] => {
  const { status, input, title, diffs, start, end } = call
  const metadata = diffs.length === 0 ? {} : { diffs }
  if (status === 'completed') return { status, input, output: outputOf(call), title, metadata, time: { start, end } }
  if (status === 'failed')
    return { status: 'error', input, error: outputOf(call) || 'It failed.', time: { start, end } }
  // Some never say that it runs: it does, or waits for a permission, when it is known with what.
  return { status: status === 'pending' && isEmpty(input) ? 'pending' : 'running', input, title, time: { start } }
}

const KINDS: Partial<Record<acp.ToolKind, PermissionKind>> = {
  execute: 'execute',
  edit: 'edit',
  delete: 'edit',
  move: 'edit',
  fetch: 'fetch',
}

export const permissionKindOf = (kind: acp.ToolKind): PermissionKind => KINDS[kind] ?? 'other'
