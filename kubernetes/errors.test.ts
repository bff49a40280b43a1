import { expect, test } from '@jest/globals'
import { refusalOf } from './errors.ts'

test.each<[string, number, string, ReturnType<typeof refusalOf>]>([
  ['a quota', 403, 'pods "lap-1" is forbidden: exceeded quota: small, requested: pods=1', 'quota_exceeded'],
  ['a quota, in a condition', 0, 'Error seen: pods "lap-1" is forbidden: exceeded quota: small', 'quota_exceeded'],
  [
    'all ports of nodes taken',
    500,
    'Internal error occurred: failed to allocate a nodePort: range is full',
    'quota_exceeded',
  ],
  [
    'all addresses of Services taken',
    500,
    'Internal error occurred: failed to allocate a serviceIP: range is full',
    'quota_exceeded',
  ],
  ['a webhook that is named for quotas', 403, 'admission webhook "quota-guard" denied the request: no', 'setup_failed'],
  ['a quota that asks for limits', 403, 'pods "lap-1" is forbidden: failed quota: q: must specify cpu', 'setup_failed'],
  [
    'a webhook that is down',
    500,
    'Internal error occurred: failed calling webhook "pods.example.com": connection refused',
    'setup_failed',
  ],
  ['a kind of object that is misspelt', 422, 'Pod "lap-1" is invalid: spec.quota: no', 'setup_failed'],
  ['a store that is slow', 500, 'etcdserver: request timed out', null],
  ['a conflict', 0, 'the object has been modified; please apply your changes', null],
])('%s is told apart by the words of the cluster', (_what, status, message, code) => {
  expect(refusalOf(status, message)).toBe(code)
})
