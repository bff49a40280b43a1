import type { Answer, ModelRequest, OfferedTool } from './dialects/dialect.ts'

/** The throwaway turn that makes a started harness a warm one, and the answers of the model it is given: no model is needed for it. */

export const WARM_UP_PROMPT = 'Run the shell command `true` once, then say that you are ready.'

/** opencode and Claude say bash, Codex exec_command or shell, Qwen Code and Gemini CLI run_shell_command. */
const SHELL = /^(bash|shell|exec_command|shell_command|run_shell_command|run|execute)$/i

const fillers: Record<string, unknown> = { boolean: false, integer: 1_000, number: 1_000, array: [], object: {} }

const typeOf = ({ type }: { type?: string | string[] } = {}): string =>
  (Array.isArray(type) ? type[0] : type) ?? 'string'

/** The arguments that run `true`: the command under the name and in the form that the tool wants, and a value for whatever else it insists on. */
const argumentsOf = ({ schema: { properties = {}, required = [] } }: OfferedTool): Record<string, unknown> => {
  const name = 'command' in properties || !('cmd' in properties) ? 'command' : 'cmd'
  const others = required.filter((each) => each !== name)
  return {
    ...Object.fromEntries(others.map((each) => [each, fillers[typeOf(properties[each])] ?? 'Does nothing'])),
    [name]: typeOf(properties[name]) === 'array' ? ['true'] : 'true',
  }
}

/** What the loopback says in the place of a model: first a call of the shell tool, if there is one, and after its result a text. */
export const warmUpAnswer = ({ tools, hasToolResult }: ModelRequest): Answer => {
  const shell = tools.find(({ name }) => SHELL.test(name))
  if (shell === undefined || hasToolResult) return { text: 'Ready.' }
  return { call: { name: shell.name, arguments: argumentsOf(shell) } }
}
