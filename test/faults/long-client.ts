import http from 'node:http'
import { EventSource } from 'eventsource'

/**
 * A client in a process of its own, with the limits that its library has by itself: `node long-client.ts <kind> <url of the session> <text>`, the key in `KEY`. It prints what
 * it got as one line of JSON.
 */

type Got = { text: string; tries: number }

const [kind = '', url = '', text = ''] = process.argv.slice(2)
const headers = { authorization: `Bearer ${process.env['KEY']}`, 'content-type': 'application/json', 'idempotency-key': 'long' } // prettier-ignore
const body = JSON.stringify({ text })

type Reply = { parts: { type: string; text?: string }[] }
const textOf = ({ parts }: Reply): string => parts.map((part) => part.text ?? '').join('')

/** As curl does: without any limit. */
const blocking = (): Promise<Got> =>
  new Promise((resolve, reject) => {
    const request = http.request(`${url}/message`, { method: 'POST', headers }, (response) => {
      let answer = ''
      response.setEncoding('utf8').on('data', (part: string) => (answer += part))
      response.on('end', () => resolve({ text: textOf(JSON.parse(answer) as Reply), tries: 1 }))
      response.on('error', reject)
    })
    request.on('error', reject).end(body)
  })

/** `fetch` gives up when no answer has begun for five minutes; the same key joins the turn again. */
const repeated = async (): Promise<Got> => {
  for (let tries = 1; ; tries++) {
    const response = await fetch(`${url}/message`, { method: 'POST', headers, body }).catch(() => null)
    if (response !== null) return { text: textOf((await response.json()) as Reply), tries }
  }
}

const streamed = async (): Promise<Got> => {
  const response = await fetch(`${url}/message_stream`, { method: 'POST', headers, body })
  const frames = (await response.text()).split('\n\n').flatMap((frame) => /^data: (.*)$/m.exec(frame)?.[1] ?? [])
  const last = JSON.parse(frames.at(-1) ?? '{}') as { reply: Reply }
  return { text: textOf(last.reply), tries: 1 }
}

/** Hears the words of the turn that somebody else sends. */
const events = (): Promise<Got> =>
  new Promise((resolve) => {
    let [heard, tries] = ['', 0]
    const source = new EventSource(`${url}/events`, {
      fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } }),
    })
    source.addEventListener('open', () => tries++)
    source.addEventListener('message', ({ data }) => {
      const frame = JSON.parse(String(data)) as {
        type: string
        event?: { type: string; properties: { delta?: string } }
      }
      if (frame.event?.type === 'message.part.delta') heard += frame.event.properties.delta ?? ''
      if (frame.type !== 'done') return
      source.close()
      resolve({ text: heard, tries })
    })
  })

const kinds: Record<string, () => Promise<Got>> = { blocking, repeated, streamed, events }
console.log(JSON.stringify(await kinds[kind]?.()))
