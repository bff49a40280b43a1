import { expect, test } from '@jest/globals'
import { createSealer } from './seal.ts'

const key = Buffer.alloc(32, 1)

test.each(['', 'secret', 'ünïcödé', 'x'.repeat(100_000)])('what was sealed opens to the same text', (text) => {
  const sealer = createSealer(key)
  expect(sealer.open(sealer.seal(text))).toBe(text)
})

test('a sealed text does not show what it holds, and is new each time', () => {
  const sealer = createSealer(key)
  expect(sealer.seal('secret')).toMatch(/^enc:v1:/)
  expect(sealer.seal('secret')).not.toContain('secret')
  expect(sealer.seal('secret')).not.toBe(sealer.seal('secret'))
})

test('another key, a missing key and a changed byte are told apart from a value', () => {
  const sealed = createSealer(key).seal('secret')
  expect(() => createSealer(Buffer.alloc(32, 2)).open(sealed)).toThrow(/not the key/)
  expect(() => createSealer(null).open(sealed)).toThrow(/ENCRYPTION_KEY is not set/)
  const bytes = Buffer.from(sealed.slice(7), 'base64')
  bytes[bytes.length - 1]! ^= 1
  expect(() => createSealer(key).open(`enc:v1:${bytes.toString('base64')}`)).toThrow(/cannot be decrypted/)
})

test('without a key values are stored as they are, and stay readable when a key comes', () => {
  expect(createSealer(null).seal('plain')).toBe('plain')
  expect(createSealer(key).open('plain')).toBe('plain')
})

test('without a key a value that looks sealed is refused, because it could never be read again', () => {
  expect(() => createSealer(null).seal('enc:v1:mine')).toThrow(/ENCRYPTION_KEY/)
})
