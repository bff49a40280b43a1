import { expect, test } from '@jest/globals'
import { isPublicAddress } from './public-address.ts'

test.each([
  '8.8.8.8',
  '1.1.1.1',
  '100.63.255.255',
  '172.32.0.1',
  '2606:4700::1111',
  '::ffff:8.8.8.8',
  '64:ff9b::808:808',
])('%s is public', (address) => {
  expect(isPublicAddress(address)).toBe(true)
})

test.each([
  ['127.0.0.1', 'loopback'],
  ['127.8.8.8', 'loopback'],
  ['::1', 'loopback'],
  ['10.0.0.1', 'private'],
  ['172.16.0.1', 'private'],
  ['192.168.1.1', 'private'],
  ['fc00::1', 'private'],
  ['fd12:3456::1', 'private'],
  ['169.254.169.254', 'link-local, where clouds answer'],
  ['fe80::1', 'link-local'],
  ['fe80::1%eth0', 'link-local with a zone'],
  ['100.64.0.1', 'shared by carriers'],
  ['0.0.0.0', 'this machine'],
  ['::', 'this machine'],
  ['192.0.2.1', 'documentation'],
  ['198.18.0.1', 'for measurements'],
  ['224.0.0.1', 'multicast'],
  ['ff02::1', 'multicast'],
  ['255.255.255.255', 'broadcast'],
  ['240.0.0.1', 'reserved'],
  ['::ffff:127.0.0.1', 'IPv4 loopback as IPv6'],
  ['::ffff:a00:1', 'private IPv4 as IPv6'],
  ['::7f00:1', 'IPv4 loopback in the old notation'],
  ['64:ff9b::a00:1', 'private IPv4 behind a translator'],
  ['2002:7f00:1::', 'IPv4 loopback in a tunnel'],
  ['2001:0:1::1', 'a tunnel'],
  ['example.com', 'no address'],
  ['', 'no address'],
])('%s is not: %s', (address) => {
  expect(isPublicAddress(address)).toBe(false)
})
