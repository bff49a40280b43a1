import { request } from 'undici'
import type { Agent } from 'undici'
import { hasBooted } from '../domain/supervisor-protocol.ts'
import type { Configuration, Health } from '../domain/supervisor-protocol.ts'
import type { SandboxSpec } from '../sandbox/driver.ts'

export const configurationOf = (spec: SandboxSpec): Configuration => ({
  sandbox_id: spec.sandboxId,
  template_hash: spec.templateHash,
  purpose: spec.purpose,
  harness: { id: spec.harnessId },
  repo_url: spec.repoUrl,
  branch: spec.branch,
  setup_command: spec.setupCommand,
  env: spec.env,
})

/** How the conversation ended: `broken` may be tried again, `refused` may not. */
export type Boot = { is: 'ended'; last: Health } | { is: 'broken'; reason: string } | { is: 'refused'; reason: string }

/** A stream that says nothing for this long is broken: the supervisor sends an empty line every 5 s. */
export const bootSilenceMs = 15_000

/**
 * `POST /configure`, then a line for each change until the sandbox can be used or has failed. The same request again is answered the same.
 * @param onHealth told of each line
 */
export const configure = async (
  target: { endpoint: string; token: string; agent: Agent },
  body: Configuration,
  options: { signal: AbortSignal; onHealth: (health: Health) => void },
): Promise<Boot> => {
  let last: Health | null = null
  try {
    const response = await request(`${target.endpoint}/configure`, {
      dispatcher: target.agent,
      method: 'POST',
      headers: { authorization: `Bearer ${target.token}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
      signal: options.signal,
    })
    if (response.statusCode !== 200) {
      const reason = `the supervisor answered ${response.statusCode}: ${(await response.body.text()).slice(0, 300)}`
      // 401: somebody else has the address, as a port that passes on may for a moment. 5xx: it is not up yet.
      const refused = response.statusCode === 409 || response.statusCode === 422
      return { is: refused ? 'refused' : 'broken', reason }
    }
    let rest = ''
    for await (const bytes of response.body as AsyncIterable<Buffer>) {
      const lines = (rest + bytes.toString('utf8')).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) {
        if (line === '') continue
        last = JSON.parse(line) as Health
        options.onHealth(last)
      }
    }
    if (last === null) return { is: 'broken', reason: 'the supervisor said nothing' }
    if (last.state !== 'failed' && !hasBooted(body.purpose, last.state))
      return { is: 'broken', reason: `the supervisor broke off while it was ${last.state}` }
    return { is: 'ended', last }
  } catch (error) {
    return { is: 'broken', reason: Error.isError(error) ? error.message : String(error) }
  }
}
