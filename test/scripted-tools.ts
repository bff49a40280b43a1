/** A tool as a harness offers it in a chat request. */
export type Tool = { function: { name: string; parameters?: Schema } }
type Schema = { properties?: Record<string, { type?: string | string[] }>; required?: string[] }

/** What the model calls. */
export type Call = { name: string; arguments: Record<string, unknown> }

const SHELLS = /^(bash|shell|exec_command|shell_command|run_shell_command|run_terminal_cmd)$/i
const WRITERS = /^(write|write_file|create_file)$/i

const find = (tools: Tool[], pattern: RegExp): Tool['function'] | undefined =>
  tools.find((tool) => pattern.test(tool.function.name))?.function

const typeOf = ({ type }: { type?: string | string[] } = {}): string =>
  (Array.isArray(type) ? type[0] : type) ?? 'string'

const fillers: Record<string, unknown> = { boolean: false, integer: 1_000, number: 1_000, array: [], object: {} }

/** Gives a value to each argument that must be there. */
const call = ({ name, parameters }: Tool['function'], own: Record<string, unknown>): Call => {
  const { properties = {}, required = [] } = parameters ?? {}
  const filled = required.map((each) => [each, fillers[typeOf(properties[each])] ?? 'As told'])
  return { name, arguments: { ...Object.fromEntries(filled), ...own } }
}

/** The first of these names that is among the tool's arguments. */
const argument = ({ parameters }: Tool['function'], names: string[]): string =>
  names.find((name) => parameters?.properties?.[name] !== undefined) ?? names[0]!

/** opencode's `bash {command, description}`, Claude's `Bash`, Codex' `exec_command {cmd}` or `shell {command: […]}`, Qwen's `run_shell_command`. Null: it offers none. */
export const shellCall = (tools: Tool[], command: string): Call | null => {
  const tool = find(tools, SHELLS)
  if (tool === undefined) return null
  const name = argument(tool, ['command', 'cmd'])
  const isList = typeOf(tool.parameters?.properties?.[name]) === 'array'
  return call(tool, { [name]: isList ? ['bash', '-lc', command] : command })
}

const quoted = (text: string): string => `'${text.replaceAll("'", String.raw`'\''`)}'`

/** By the harness' tool for files, or, as Codex, by its shell. */
export const writeCall = (tools: Tool[], path: string, content: string): Call | null => {
  const tool = find(tools, WRITERS)
  if (tool === undefined)
    return shellCall(tools, `mkdir -p "$(dirname ${quoted(path)})" && printf %s ${quoted(content)} > ${quoted(path)}`)
  return call(tool, {
    [argument(tool, ['file_path', 'filePath', 'path', 'absolute_path'])]: path,
    [argument(tool, ['content', 'file_text', 'text'])]: content,
  })
}

/** The tool of this name, or whose name ends so, as a server's tools are often put behind its name. */
export const namedCall = (tools: Tool[], name: string, json: string): Call | null => {
  const tool =
    tools.find((each) => each.function.name === name) ?? tools.find((each) => each.function.name.endsWith(name))
  return tool === undefined
    ? null
    : { name: tool.function.name, arguments: JSON.parse(json) as Record<string, unknown> }
}
