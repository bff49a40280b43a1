import { expect, test } from '@jest/globals'
import { asTtySize, isTyping, readTtyControl } from './tty.ts'

test.each([
  ['{"type":"ping"}', { type: 'ping' }],
  ['{"type":"resize","cols":80,"rows":24}', { type: 'resize', cols: 80, rows: 24 }],
  ['{"type":"resize","cols":80}', null],
  ['{"type":"resize","cols":0,"rows":24}', null],
  ['{"type":"resize","cols":80.5,"rows":24}', null],
  ['{"type":"resize","cols":1001,"rows":24}', null],
  ['{"type":"resize","cols":80,"rows":501}', null],
  ['{"type":"other"}', null],
  ['{"type":', null],
  ['null', null],
  ['hello', null],
  ['', null],
])('%s is control or not', (text, control) => expect(readTtyControl(text)).toEqual(control))

test('a size without a number in it is none', () => {
  expect(asTtySize(Number('a'), 24)).toBeNull()
  expect(asTtySize(Number(null), Number(null))).toBeNull()
})

test.each([
  ['a', true],
  ['\r', true],
  ['\u001b', true],
  ['\u001b[A', true],
  ['\u001b[<0;10;10M', true],
  ['\u001b[<32;10;10M', true],
  ['\u001b[Ia', true],
  ['x'.repeat(1_000), true],
  ['', false],
  ['\u001b[I', false],
  ['\u001b[O\u001b[I', false],
  ['\u001b[<35;10;10M', false],
  ['\u001b[<39;10;10M\u001b[<35;11;10M', false],
])('%j is typed or not', (text, typed) => expect(isTyping(Buffer.from(text))).toBe(typed))
