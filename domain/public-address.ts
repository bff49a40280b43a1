import ipaddr from 'ipaddr.js'

const GLOBAL_IPV6: [ipaddr.IPv6, number] = [ipaddr.IPv6.parse('2000::'), 3]

/** The IPv4 address that a translator of networks reaches by an address of `64:ff9b::/96` (RFC 6052). */
const translated = (address: ipaddr.IPv6): ipaddr.IPv4 => new ipaddr.IPv4(address.toByteArray().slice(12))

/**
 * Whether an address is one of the public internet. What is not known to be is not: loopback, private, link-local (where clouds answer with credentials), shared
 * and reserved ranges, multicast, and IPv6 that carries such an IPv4 address.
 */
export const isPublicAddress = (text: string): boolean => {
  if (!ipaddr.isValid(text)) return false
  const address = ipaddr.process(text)
  if (address.kind() === 'ipv4') return address.range() === 'unicast'
  const ipv6 = address as ipaddr.IPv6
  if (ipv6.range() === 'rfc6052') return isPublicAddress(translated(ipv6).toString())
  return ipv6.range() === 'unicast' && ipv6.match(...GLOBAL_IPV6)
}
