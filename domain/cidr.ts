import ipaddr from 'ipaddr.js'

/** Addresses that have their first bits in common; one address is a range of its own. */
export type Range = {
  /** `10.0.0.0/8`, `fc00::/7`: without host bits, each range in one way only. */
  text: string
  address: ipaddr.IPv4 | ipaddr.IPv6
  bits: number
}

const rangeOf = (address: ipaddr.IPv4 | ipaddr.IPv6, bits: number): Range => {
  // On the wire it is IPv4: written otherwise it must not get past a range that holds it.
  if (address.kind() === 'ipv6' && (address as ipaddr.IPv6).isIPv4MappedAddress() && bits >= 96)
    return rangeOf((address as ipaddr.IPv6).toIPv4Address(), bits - 96)
  const cidr = `${address.toString()}/${bits}`
  const first = (address.kind() === 'ipv4' ? ipaddr.IPv4 : ipaddr.IPv6).networkAddressFromCIDR(cidr)
  return { text: `${first.toString()}/${bits}`, address: first, bits }
}

const isAddress = (text: string): boolean =>
  ipaddr.IPv4.isValidFourPartDecimal(text) || (ipaddr.IPv6.isValid(text) && !text.includes('%'))

/** An address, or a range in CIDR notation; host bits are dropped. @returns null when it is neither */
export const parseRange = (text: string): Range | null => {
  const [address = '', prefix, ...rest] = text.split('/')
  if (!isAddress(address) || rest.length > 0 || (prefix !== undefined && !/^\d{1,3}$/.test(prefix))) return null
  const parsed = ipaddr.parse(address)
  const bitsMax = parsed.kind() === 'ipv4' ? 32 : 128
  const bits = prefix === undefined ? bitsMax : Number(prefix)
  return bits > bitsMax ? null : rangeOf(parsed, bits)
}

/** Whether it is meant as an address, right or wrong: no name of a host looks so. */
export const looksLikeAddress = (text: string): boolean => text.includes(':') || /^[\d.]+(\/\d+)?$/.test(text)

/** Whether every address of `inner` is one of `outer`. */
export const covers = (outer: Range, inner: Range): boolean =>
  outer.address.kind() === inner.address.kind() &&
  outer.bits <= inner.bits &&
  inner.address.match(outer.address, outer.bits)

/** The same addresses with no range inside another. */
export const widest = (ranges: Range[]): Range[] =>
  ranges
    .toSorted((a, b) => a.bits - b.bits)
    .reduce<Range[]>((kept, range) => (kept.some((one) => covers(one, range)) ? kept : [...kept, range]), [])
