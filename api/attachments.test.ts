import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { isAppError } from '../domain/errors.ts'
import { imageMaxBytes } from '../domain/image.ts'
import { validate } from './middleware/validate.ts'
import type { Message } from './schemas/message.ts'
import { MessagePatch, MessageSend } from './schemas/message.ts'
import type { Session } from './schemas/session.ts'
import { SessionCreate } from './schemas/session.ts'
import { startTestApi } from '../test/api.ts'
import type { Failure, TestApi } from '../test/api.ts'

/** A whole image of one pixel. */
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
const JPEG = Buffer.from([0xff, 0xd8, 0xff, 0xe0, 0, 16, 0x4a, 0x46]).toString('base64')
const GIF = Buffer.from('GIF89a\x01\x00').toString('base64')
const webp = (size: number[]) =>
  Buffer.concat([Buffer.from('RIFF'), Buffer.from(size), Buffer.from('WEBPVP8 ')]).toString('base64')
/** Too large by one byte. */
const large = Buffer.concat([Buffer.from(PNG, 'base64'), Buffer.alloc(imageMaxBytes + 1 - 68)]).toString('base64')

const attachment = (over: object = {}) => ({ mime_type: 'image/png', base64: PNG, ...over })
const file = (over: object = {}) => ({
  type: 'file',
  mime: 'image/png',
  filename: 'a.png',
  url: `data:image/png;base64,${PNG}`,
  ...over,
})
const source = (over: object = {}) => ({ type: 'base64', media_type: 'image/png', data: PNG, ...over })

const faults = (act: () => unknown): [string, string][] => {
  try {
    act()
  } catch (error) {
    if (!isAppError(error) || error.code !== 'invalid') throw error
    return (error.details ?? []).map(({ path, message }) => [path, message])
  }
  return []
}
const times = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value)

describe('an image', () => {
  test.each([
    ['image/png', PNG],
    ['image/jpeg', JPEG],
    ['image/gif', GIF],
    ['image/webp', webp([0, 0, 0, 0])],
    ['image/webp', webp([255, 254, 253, 252])],
  ])('of %s is taken in each form', (mime, base64) => {
    const forms = [
      { attachments: [{ mime_type: mime, base64 }] },
      { parts: [{ type: 'file', mime, url: `data:${mime};base64,${base64}` }] },
      { parts: [{ type: 'image', source: { type: 'base64', media_type: mime, data: base64 } }] },
    ]
    for (const body of forms) expect(faults(() => validate(MessageSend, body))).toEqual([])
  })

  test.each<[string, object, string, string]>([
    ['of another kind', attachment({ mime_type: 'image/tiff' }), 'mime_type', 'image/png, image/jpeg'],
    ['of nothing', attachment({ base64: '' }), 'base64', 'must not be empty'],
    ['that is no base64', attachment({ base64: `${PNG}?` }), 'base64', 'must be base64'],
    ['that is cut off', attachment({ base64: PNG.slice(0, -3) }), 'base64', 'must be base64'],
    ['that is too large', attachment({ base64: large }), 'base64', '5 MiB'],
    ['that is another one than it says', attachment({ base64: JPEG }), 'base64', 'is not the image/png'],
    ['without its contents', { mime_type: 'image/png' }, 'base64', 'must be base64'],
    ['with a long name', attachment({ name: 'x'.repeat(256) }), 'name', '255'],
    ['with an unknown field', attachment({ url: 'x' }), 'url', 'allowed here'],
  ])('%s is refused with its path, in a message, a change of one, and a session', (_, one, path, message) => {
    const paths = (name: string, schema: Parameters<typeof validate>[0]) =>
      faults(() => validate(schema, { [name]: [attachment(), one] }))
    const expected = (name: string) => [[`${name}[1].${path}`, expect.stringContaining(message)]]
    expect(paths('attachments', MessageSend)).toEqual(expected('attachments'))
    expect(paths('attachments', MessagePatch)).toEqual(expected('attachments'))
    expect(paths('initial_attachments', SessionCreate)).toEqual(expected('initial_attachments'))
  })

  test.each<[string, object, string, string]>([
    ['of another kind', file({ mime: 'application/pdf' }), 'mime', 'must be one of'],
    ['without a kind', file({ mime: undefined }), 'mime', 'must be a string'],
    ['elsewhere', file({ url: 'https://example.com/a.png' }), 'url', 'must be a data URL'],
    ['of the sandbox’ disk', file({ url: 'file:///etc/passwd' }), 'url', 'must be a data URL'],
    ['that says two things', file({ mime: 'image/gif' }), 'url', 'must hold what mime says'],
    ['that is another one', file({ url: `data:image/png;base64,${GIF}` }), 'url', 'is not the image/png'],
    ['that is too large', file({ url: `data:image/png;base64,${large}` }), 'url', '5 MiB'],
    [
      'of Anthropic’s form and another kind',
      { type: 'image', source: source({ media_type: 'x/y' }) },
      'source.media_type',
      'must be one of',
    ],
    ['of Anthropic’s form by URL', { type: 'image', source: source({ type: 'url' }) }, 'source.type', 'must be base64'],
    [
      'of Anthropic’s form that is no base64',
      { type: 'image', source: source({ data: '!' }) },
      'source.data',
      'must be base64',
    ],
  ])('as a part %s is refused with its path', (_, part, path, message) => {
    const body = { parts: [{ type: 'text', text: 'see' }, part] }
    expect(faults(() => validate(MessageSend, body))).toEqual([[`parts[1].${path}`, expect.stringContaining(message)]])
  })

  test('more than ten are refused, in either form', () => {
    expect(faults(() => validate(MessageSend, { attachments: times(11, attachment()) }))).toEqual([
      ['attachments', 'must have at most 10 images'],
    ])
    expect(
      faults(() =>
        validate(MessageSend, { parts: [...times(5, file()), ...times(6, { type: 'image', source: source() })] }),
      ),
    ).toEqual([['parts', 'must have at most 10 images']])
    expect(faults(() => validate(MessageSend, { parts: [...times(10, file()), { type: 'text', text: 'x' }] }))).toEqual(
      [],
    )
  })
})

test('a text part has a text; parts that only a harness knows pass', () => {
  expect(faults(() => validate(MessageSend, { parts: [{ type: 'text' }] }))).toEqual([
    ['parts[0].text', 'must be a string'],
  ])
  expect(faults(() => validate(MessageSend, { parts: [{ type: 'agent', name: 'plan' }] }))).toEqual([])
})

describe('in a session', () => {
  let api: TestApi
  let agent: string
  beforeAll(async () => {
    api = await startTestApi({ worker: true, env: { WARM_POOL_SIZE: '0' } })
    const body = { model: 'demo', harness_id: 'light' }
    agent = (await api.call<{ id: string }>('POST', '/agents', { body })).body.id
  }, 90_000)
  afterAll(async () => {
    await api[Symbol.asyncDispose]()
  }, 60_000)

  const open = async (body: object) =>
    (await api.call<Session>('POST', `/agents/${agent}/session?wait=ready`, { body })).body.id
  const filesOf = async (id: string) =>
    (await api.call<Message[]>('GET', `/sessions/${id}/messages`)).body
      .filter(({ info }) => info['role'] === 'user')
      .map(({ parts }) => parts.filter(({ type }) => type !== 'text'))

  test('images reach the harness in one form, whatever the one in which they were sent, and stay in the thread', async () => {
    const id = await open({ initial_prompt: 'say one', initial_attachments: [attachment({ name: 'first.png' })] })
    const send = (body: object) => api.call<Message>('POST', `/sessions/${id}/message`, { body })
    await send({ text: 'say two', attachments: [attachment()] })
    await send({ parts: [{ type: 'text', text: 'say three' }, file()] })
    await send({
      parts: [
        { type: 'text', text: 'say four' },
        { type: 'image', source: source() },
      ],
    })
    const said = (filename: string) => [file({ filename })]
    const expected = [said('first.png'), said('attachment-1.png'), said('a.png'), said('attachment-2.png')]
    expect(await filesOf(id)).toEqual(expected)
    const { body: session } = await api.call<Session>('GET', `/sessions/${id}`)
    const heard = await api.deps.supervisor.messages({
      id: session.task_arn!.slice('lap-'.length),
      endpoint: session.sandbox_url,
    })
    const files = heard
      .filter(({ info }) => info['role'] === 'user')
      .map(({ parts }) =>
        parts.filter(({ type }) => type !== 'text').map(({ type, mime, url }) => ({ type, mime, url })),
      )
    expect(files).toEqual(times(4, [{ type: 'file', mime: 'image/png', url: file().url }]))
  })

  test('a body beyond what a request may hold is 413, one image beyond its size 422 with its path', async () => {
    const id = await open({})
    const send = (body: object) => api.call<Failure>('POST', `/sessions/${id}/message`, { body })
    const tooMuch = Buffer.concat([Buffer.from(PNG, 'base64'), Buffer.alloc(imageMaxBytes - 100)]).toString('base64')
    expect(
      await send({ attachments: [attachment({ base64: tooMuch }), attachment({ base64: tooMuch })] }),
    ).toMatchObject({
      status: 413,
      body: { code: 'too_large', error: expect.stringContaining('10 MiB') },
    })
    expect(await send({ attachments: [attachment({ base64: large })] })).toMatchObject({
      status: 422,
      body: { details: [{ path: 'attachments[0].base64' }] },
    })
    expect(await filesOf(id)).toEqual([])
  })

  test('the images of a message that waits are changed without its words, and its words without its images', async () => {
    const id = await open({})
    const stop = new AbortController()
    const background = (body: object) =>
      void api.call('POST', `/sessions/${id}/message`, { body, signal: stop.signal }).catch(() => null)
    background({ text: 'wait 60000' })
    const queue = async () => (await api.call<{ id: string }[]>('GET', `/sessions/${id}/queue`)).body
    const running = async () =>
      (await api.call<Message[]>('GET', `/sessions/${id}/messages`)).body[0]?.info['status'] === 'running'
    while (!(await running())) await new Promise((resolve) => setTimeout(resolve, 25))
    background({ text: 'before', attachments: [attachment({ name: 'old.png' })] })
    while ((await queue()).length === 0) await new Promise((resolve) => setTimeout(resolve, 25))
    const path = `/sessions/${id}/messages/${(await queue())[0]!.id}`
    const patch = async (body: object) => (await api.call<{ parts: object[] }>('PATCH', path, { body })).body.parts
    expect(await patch({ text: 'after' })).toEqual([{ type: 'text', text: 'after' }, file({ filename: 'old.png' })])
    expect(await patch({ attachments: [attachment({ name: 'new.png' })] })).toEqual([
      { type: 'text', text: 'after' },
      file({ filename: 'new.png' }),
    ])
    expect(await patch({ attachments: [] })).toEqual([{ type: 'text', text: 'after' }])
    stop.abort()
    await api.call('DELETE', `/sessions/${id}`)
  })
})
