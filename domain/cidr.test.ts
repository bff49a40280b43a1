import { expect, test } from '@jest/globals'
import { covers, looksLikeAddress, parseRange, type Range, widest } from './cidr.ts'

const range = (text: string): Range => {
  const parsed = parseRange(text)
  if (parsed === null) throw new Error(`${text} is no range`)
  return parsed
}

test.each([
  ['10.1.2.3', '10.1.2.3/32'],
  ['10.1.2.3/8', '10.0.0.0/8'],
  ['255.255.255.255/0', '0.0.0.0/0'],
  ['0.0.0.0/08', '0.0.0.0/8'],
  ['2001:DB8:0::1', '2001:db8::1/128'],
  ['2001:db8:ffff::1/33', '2001:db8:8000::/33'],
  ['fe80::1/0', '::/0'],
  ['64:ff9b::1.2.3.4/96', '64:ff9b::/96'],
  // IPv4 in the clothes of IPv6.
  ['::ffff:169.254.169.254', '169.254.169.254/32'],
  ['::ffff:a9fe:a9fe/112', '169.254.0.0/16'],
  ['::ffff:1.2.3.4/96', '0.0.0.0/0'],
])('%s is the range %s', (text, expected) => {
  expect(parseRange(text)?.text).toBe(expected)
})

// prettier-ignore
test.each([
  '', '/', '/8', 'example.com', '*.example.com', '10.0.0/8', '10.1', '010.0.0.1', '0x0a.0.0.1', '167772161', '256.0.0.1', '10.0.0.0/33', '10.0.0.0/', '10.0.0.0/-1',
  '10.0.0.0/8/8', '10.0.0.0/8 ', ' ::1', '::/129', '1::2::3', 'fe80::1%eth0', '12345::',
])('"%s" is no range', (text) => {
  expect(parseRange(text)).toBeNull()
})

test.each([
  ['10.0.0.0/33', true],
  ['10.0.0', true],
  ['1::2::3', true],
  ['10.0.0.1', true],
  ['api.example.com', false],
  ['*.10', false],
  ['1e100.net', false],
  ['10.example/8', false],
])('%s is meant as an address: %s', (text, expected) => {
  expect(looksLikeAddress(text)).toBe(expected)
})

test.each([
  ['10.0.0.0/8', '10.1.0.0/16', true],
  ['10.0.0.0/8', '10.0.0.0/8', true],
  ['10.1.0.0/16', '10.0.0.0/8', false],
  ['10.0.0.0/8', '11.0.0.0/16', false],
  ['0.0.0.0/0', '255.255.255.255', true],
  ['0.0.0.0/0', '::/0', false],
  ['::/0', '10.0.0.0/8', false],
  ['fc00::/7', 'fd00:ec2::254', true],
  ['fc00::/7', 'fe00::1', false],
])('%s covers %s: %s', (outer, inner, expected) => {
  expect(covers(range(outer), range(inner))).toBe(expected)
})

test('of ranges inside each other the widest are left, each once', () => {
  const all = ['10.1.0.0/16', '::1', '10.0.0.0/8', '10.0.0.1/8', 'fc00::/7', '11.0.0.0/8', 'fd00::/8'].map(range)
  expect(widest(all).map(({ text }) => text)).toEqual(['fc00::/7', '10.0.0.0/8', '11.0.0.0/8', '::1/128'])
})
