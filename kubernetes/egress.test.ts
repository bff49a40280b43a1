import { BlockList } from 'node:net'
import { expect, test } from '@jest/globals'
import { blocksOf, type EgressSettings } from './egress.ts'
import type { IpBlock } from './objects.ts'

const blocked = ['10.0.0.0/8', '169.254.0.0/16', 'fc00::/7']
const settings: EgressSettings = { blocked, allowed: [], dnsPodLabels: {} }

const v4 = (...except: string[]): IpBlock => ({ cidr: '0.0.0.0/0', except })
const v6 = (...except: string[]): IpBlock => ({ cidr: '::/0', except })

const reached = (allowOut: string[], denyOut: string[] = [], more: Partial<EgressSettings> = {}) =>
  blocksOf({ allowOut, denyOut }, { ...settings, ...more })

test.each<[string, string[], string[]]>([
  ['there are none', [], []],
  ['only names are denied', [], ['example.com', '*.example.com']],
  ['names are allowed', ['api.example.com'], []],
  ['one name is allowed', ['192.0.2.0/24', '*.example.com'], []],
  ['names are allowed, and all addresses denied', ['api.example.com'], ['0.0.0.0/0', '::/0']],
])('rules make no policy when %s', (_when, allowOut, denyOut) => {
  expect(reached(allowOut, denyOut)).toBeNull()
})

test.each<[string, string[], IpBlock[]]>([
  ['one address', ['192.0.2.1'], [{ cidr: '192.0.2.1/32' }]],
  ['one of IPv6', ['2001:db8::1'], [{ cidr: '2001:db8::1/128' }]],
  ['several, in any order', ['192.0.2.0/24', '198.51.100.7'], [{ cidr: '192.0.2.0/24' }, { cidr: '198.51.100.7/32' }]],
  ['host bits', ['192.0.2.77/24'], [{ cidr: '192.0.2.0/24' }]],
  ['duplicates', ['192.0.2.0/24', '192.0.2.1/24', '192.0.2.0/24'], [{ cidr: '192.0.2.0/24' }]],
  ['one inside another', ['192.0.2.1', '192.0.2.0/24', '192.0.0.0/16'], [{ cidr: '192.0.0.0/16' }]],
  ['a blocked range inside it', ['8.0.0.0/6'], [{ cidr: '8.0.0.0/6', except: ['10.0.0.0/8'] }]],
  ['all of IPv4, and so none of IPv6', ['0.0.0.0/0'], [v4('10.0.0.0/8', '169.254.0.0/16')]],
  ['all of IPv6', ['::/0'], [v6('fc00::/7')]],
  ['what is blocked', ['10.0.0.0/8', '10.1.2.3', '169.254.169.254', 'fd00:ec2::254'], []],
  ['cloud metadata, written as IPv6', ['::ffff:169.254.169.254'], []],
  ['some of it blocked', ['10.1.2.3', '192.0.2.1'], [{ cidr: '192.0.2.1/32' }]],
])('allowed alone is reached: %s', (_what, allowOut, expected) => {
  expect(reached(allowOut)).toEqual(expected)
  // What is not allowed is denied anyway.
  expect(reached(allowOut, ['192.0.2.0/24', '0.0.0.0/0', 'example.com'])).toEqual(expected)
})

test.each<[string, string[], IpBlock[]]>([
  ['an address', ['192.0.2.1'], [v4('169.254.0.0/16', '10.0.0.0/8', '192.0.2.1/32'), v6('fc00::/7')]],
  ['beside a name', ['192.0.2.1', 'example.com'], [v4('10.0.0.0/8', '169.254.0.0/16', '192.0.2.1/32'), v6('fc00::/7')]],
  ['one of IPv6', ['2001:db8::/32'], [v4('10.0.0.0/8', '169.254.0.0/16'), v6('2001:db8::/32', 'fc00::/7')]],
  ['what is blocked already', ['10.1.2.3', 'fd00::/8'], [v4('10.0.0.0/8', '169.254.0.0/16'), v6('fc00::/7')]],
  ['more than is blocked', ['8.0.0.0/5'], [v4('8.0.0.0/5', '169.254.0.0/16'), v6('fc00::/7')]],
  [
    'duplicates',
    ['192.0.2.7/24', '192.0.2.0/24'],
    [v4('10.0.0.0/8', '169.254.0.0/16', '192.0.2.0/24'), v6('fc00::/7')],
  ],
  ['all of IPv4', ['0.0.0.0/0'], [v6('fc00::/7')]],
  ['all', ['0.0.0.0/0', '::/0'], []],
  ['all in halves', ['0.0.0.0/1', '128.0.0.0/1', '::/0'], [v4('0.0.0.0/1', '128.0.0.0/1')]],
])('denied is taken from what is open: %s', (_what, denyOut, expected) => {
  const sorted = (blocks: IpBlock[] | null) => blocks?.map(({ cidr, except }) => ({ cidr, except: except?.toSorted() }))
  expect(sorted(reached([], denyOut))).toEqual(sorted(expected))
})

test('where nothing is blocked rules hold as they are', () => {
  expect(reached(['10.0.0.0/8'], [], { blocked: [] })).toEqual([{ cidr: '10.0.0.0/8' }])
  expect(reached([], ['192.0.2.1'], { blocked: [] })).toEqual([v4('192.0.2.1/32'), { cidr: '::/0' }])
})

test('where everything is blocked only what every sandbox reaches is left', () => {
  const all = { blocked: ['0.0.0.0/0', '::/0'] }
  expect(reached(['192.0.2.1'], [], all)).toEqual([])
  expect(reached([], ['192.0.2.1'], { ...all, allowed: ['10.20.0.0/24'] })).toEqual([{ cidr: '10.20.0.0/24' }])
})

test('what every sandbox reaches is whole, whatever is blocked, allowed and denied', () => {
  const allowed = ['10.20.0.0/24', '10.20.0.7/32', '192.0.2.0/24']
  const always = [{ cidr: '10.20.0.0/24' }, { cidr: '192.0.2.0/24' }]
  expect(reached(['192.0.2.1', '198.51.100.1'], [], { allowed })).toEqual([...always, { cidr: '198.51.100.1/32' }])
  expect(reached([], ['192.0.2.0/24'], { allowed })).toEqual([
    ...always,
    v4('10.0.0.0/8', '169.254.0.0/16', '192.0.2.0/24'),
    v6('fc00::/7'),
  ])
  expect(reached(['10.0.0.0/8'], [], { allowed })).toEqual(always)
  expect(reached(['api.example.com'], [], { allowed })).toBeNull()
})

test.each([
  [['10.0.0.0/33'], []],
  [[], ['300.1.1.1']],
  [['example.com', '1::2::3'], []],
])('an address that is none holds nobody, so the sandbox is not made: %j %j', (allowOut, denyOut) => {
  expect(() => reached(allowOut, denyOut)).toThrow(
    expect.objectContaining({
      failure: expect.objectContaining({
        code: 'setup_failed',
        message: expect.stringContaining('neither a host nor an address'),
      }),
    }),
  )
})

type Family = 'ipv4' | 'ipv6'

/** Whether an address is in any of these. A list of Node takes `::/0` for IPv4, too, which the network does not. */
const isIn = (ranges: string[], at: string, kind: Family): boolean => {
  const list = new BlockList()
  for (const range of ranges) {
    const [address = '', bits] = range.split('/')
    if (address.includes(':') === (kind === 'ipv6')) list.addSubnet(address, Number(bits), kind)
  }
  return list.check(at, kind)
}

test('any rules: an address is reached if they say so, by another reckoning', () => {
  // Few bits, so that ranges meet; the same numbers each time.
  let seed = 7
  const below = (limit: number): number => (seed = (seed * 48_271) % 2_147_483_647) % limit
  const address = (kind: Family): string =>
    kind === 'ipv4'
      ? `${below(4) * 64}.${below(4) * 64}.0.${below(2)}`
      : `${(below(4) * 16_384).toString(16)}::${below(2)}`
  const range = (): string => (below(2) === 0 ? `${address('ipv4')}/${below(17)}` : `${address('ipv6')}/${below(6)}`)
  const ranges = (atMost: number): string[] => Array.from({ length: below(atMost + 1) }, range)
  let policies = 0
  for (let round = 0; round < 400; round++) {
    const [allowOut, denyOut, shut, allowed] = [ranges(3), ranges(3), ranges(3), ranges(1)]
    const blocks = reached(allowOut, denyOut, { blocked: shut, allowed })
    expect(blocks === null).toBe(allowOut.length === 0 && denyOut.length === 0)
    if (blocks === null) continue
    policies++
    for (const kind of ['ipv4', 'ipv6'] as const)
      for (let n = 0; n < 6; n++) {
        const at = address(kind)
        const isOpen = allowOut.length > 0 ? isIn(allowOut, at, kind) : !isIn(denyOut, at, kind)
        const expected = isIn(allowed, at, kind) || (isOpen && !isIn(shut, at, kind))
        const found = blocks.some(({ cidr, except = [] }) => isIn([cidr], at, kind) && !isIn(except, at, kind))
        const given = { at, allowOut, denyOut, shut, allowed, blocks }
        expect({ ...given, found }).toEqual({ ...given, found: expected })
      }
  }
  expect(policies).toBeGreaterThan(300)
})
