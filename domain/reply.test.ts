import { expect, test } from '@jest/globals'
import { createReplyCollector } from './reply.ts'

type Event = Parameters<ReturnType<typeof createReplyCollector>['hear']>[0]

const info = (id: string, more: object = {}): Event => ({
  type: 'message.updated',
  properties: { sessionID: 's', info: { id, role: 'assistant', ...more } },
})
const part = (messageID: string, id: string, text: string): Event => ({
  type: 'message.part.updated',
  properties: { part: { id, messageID, sessionID: 's', type: 'text', text } },
})
const delta = (messageID: string, partID: string, text: string, field = 'text'): Event => ({
  type: 'message.part.delta',
  properties: { messageID, partID, field, delta: text },
})
const removed = (messageID: string, partID: string): Event => ({
  type: 'message.part.removed',
  properties: { messageID, partID },
})

/** Everything that a harness may say of a reply, and some things that it should not. */
const TURN: Event[] = [
  { type: 'message.updated', properties: { info: { id: 'u', role: 'user' } } },
  part('u', 'p0', 'Do it'),
  info('m1'),
  part('m1', 'p1', ''),
  delta('m1', 'p1', 'I will '),
  part('m1', 'p2', 'tool'),
  delta('m1', 'p1', 'look'),
  delta('m1', 'p2', 'so far', 'output'),
  delta('m1', 'unknown', 'lost'),
  part('m1', 'p1', 'I will look.'),
  removed('m1', 'p2'),
  info('m1', { cost: 1 }),
  info('m2'),
  part('m2', 'p3', 'Do'),
  info('m1', { cost: 2 }),
  part('m1', 'p2', 'tool again'),
  delta('m2', 'p3', 'ne'),
  { type: 'session.idle', properties: { sessionID: 's' } },
]

const replyTo = (events: Event[], from?: Parameters<typeof createReplyCollector>[0]) => {
  const collector = createReplyCollector(from)
  for (const event of events) collector.hear(event)
  return collector
}

test('a reply is the parts of all assistant messages in order, under the info of the last one', () => {
  expect(replyTo(TURN).reply()).toEqual({
    info: { id: 'm2', role: 'assistant' },
    parts: [
      { id: 'p1', messageID: 'm1', sessionID: 's', type: 'text', text: 'I will look.' },
      { id: 'p2', messageID: 'm1', sessionID: 's', type: 'text', text: 'tool again' },
      { id: 'p3', messageID: 'm2', sessionID: 's', type: 'text', text: 'Done' },
    ],
  })
  expect(replyTo(TURN.slice(0, 2)).soFar()).toEqual({ reply: null, earlier: [] })
})

test.each(TURN.map((_, cut) => cut))('who goes on from a reply so far, at event %i, gets the same', (cut) => {
  const before = structuredClone(replyTo(TURN.slice(0, cut)).soFar())
  expect(replyTo(TURN.slice(cut), before).soFar()).toEqual(replyTo(TURN).soFar())
})
