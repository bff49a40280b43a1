/** A tool as a request offers it, in whichever dialect. */
export type OfferedTool = { name: string; schema: ToolSchema }
export type ToolSchema = { properties?: Record<string, { type?: string | string[] }>; required?: string[] }

/** What is read of a request to a model. */
export type ModelRequest = {
  model: string
  stream: boolean
  tools: OfferedTool[]
  /** The harness has used a tool and comes back with what it said. */
  hasToolResult: boolean
}

/** What a model answers: a text, or a call of a tool. */
export type Answer = { text: string } | { call: { name: string; arguments: Record<string, unknown> } }

/** Body of a response, as text. */
export type Reply = { contentType: string; body: string }

/** Why a request is refused; without a `type` it is what the status says. */
export type Refusal = { message: string; type?: string; status: number }

/** How one kind of client talks to models over HTTP. */
export type Dialect = {
  /** @param body the parsed request; a field that is missing or of another kind counts as not there */
  read(body: Json): ModelRequest
  /** The request with another model, asking for what it has used. */
  rewrite(body: Json, model: string): Json
  write(answer: Answer, request: Pick<ModelRequest, 'model' | 'stream'>): Reply
  /** The body of an error. */
  refuse(refusal: Refusal): object
  /** Whether a body is an error in the form of this dialect. */
  isRefusal(body: Json): boolean
}

export type Json = Record<string, unknown>

/** https://docs.claude.com/en/api/errors; clients of OpenAI go by the status. */
const ERROR_TYPES: Record<number, string> = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  529: 'overloaded_error',
}

export const errorTypeOf = (status: number): string =>
  ERROR_TYPES[status] ?? (status < 500 ? 'invalid_request_error' : 'api_error')

export const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

export const objectsIn = (value: unknown): Json[] => (Array.isArray(value) ? value.filter(isObject) : [])

export const textIn = (value: unknown): string => (typeof value === 'string' ? value : '')

/** @param schema a JSON schema of arguments, as it was sent */
export const offered = (name: unknown, schema: unknown): OfferedTool[] =>
  typeof name === 'string' ? [{ name, schema: isObject(schema) ? schema : {} }] : []

export const jsonReply = (body: object): Reply => ({ contentType: 'application/json', body: JSON.stringify(body) })

/** Frames of a stream. @param named whether each has its `type` as the name of its event, too */
export const streamReply = (frames: Json[], { named, end = '' }: { named: boolean; end?: string }): Reply => {
  const frame = (data: Json): string =>
    `${named ? `event: ${textIn(data['type'])}\n` : ''}data: ${JSON.stringify(data)}\n\n`
  return { contentType: 'text/event-stream', body: frames.map(frame).join('') + end }
}
