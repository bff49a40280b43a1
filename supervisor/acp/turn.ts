import * as acp from '@agentclientprotocol/sdk/unstable'

type Fields = Record<string, unknown>
const at = (from: unknown, key: string): unknown =>
  typeof from === 'object' && from !== null ? (from as Fields)[key] : undefined

/** The words of a gateway, where an agent passes them on as the JSON that they came in. */
const unwrapped = (text: string): string => {
  try {
    const error = at(JSON.parse(text), 'error')
    const message = at(error, 'message')
    return typeof message === 'string' ? message : text
  } catch {
    return text
  }
}

/** What an agent says of a turn that it could not finish, by the extension that we ask for. */
const failureIn = (meta: unknown): string | null => {
  const failure = at(at(at(meta, 'jetbrains'), 'air'), 'sessionFailure')
  const title = at(failure, 'title')
  return at(failure, 'severity') === 'error' && typeof title === 'string' ? unwrapped(title) : null
}

const STOPPED: Partial<Record<acp.StopReason, string>> = {
  refusal: 'The model refused to go on.',
  max_turn_requests: 'The harness stopped after its greatest number of requests in one turn.',
}

/** What went wrong in a turn that was answered; null: nothing. @param ended it was told to stop, or was denied something */
export const errorOf = ({ stopReason, _meta }: acp.PromptResponse, ended: boolean): string | null => {
  const failure = failureIn(_meta) ?? STOPPED[stopReason]
  if (failure !== undefined) return failure
  return stopReason === 'cancelled' && !ended ? 'The harness stopped by itself.' : null
}

/** The words of a refused request. */
export const refusalText = (error: unknown): string => {
  if (!(error instanceof acp.RequestError)) return Error.isError(error) ? error.message : String(error)
  const details = at(error.data, 'details')
  return typeof details === 'string' ? details : error.message.replace(/^Internal error: /, '')
}
