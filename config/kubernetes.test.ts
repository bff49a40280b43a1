import { expect, test } from '@jest/globals'
import { type Config, loadConfig } from './config.ts'
import { ConfigError } from './problems.ts'

const load = (more: Record<string, string> = {}): Config['k8s']['egress'] =>
  loadConfig({
    DATABASE_URL: 'postgresql://lap@localhost/lap',
    MASTER_KEY: '12345678',
    LITELLM_API_BASE: 'http://localhost:4000',
    LITELLM_API_KEY: 'sk-1',
    PREINSTALLED_GITHUB_REPO: 'https://git.example.com/repo',
    ...more,
  }).k8s.egress

test('ranges are read as they are meant: host bits dropped, each once', () => {
  const text = ' 10.1.2.3/8, 10.0.0.0/8,::ffff:169.254.0.0/112,2001:DB8::1/32,'
  expect(load({ K8S_EGRESS_BLOCKED: text, K8S_EGRESS_ALLOW: '10.1.2.3/32' })).toMatchObject({
    blocked: ['10.0.0.0/8', '169.254.0.0/16', '2001:db8::/32'],
    allowed: ['10.1.2.3/32'],
  })
})

test('what is inside is blocked unless none is, and nothing is allowed beside', () => {
  expect(load()).toMatchObject({ blocked: expect.arrayContaining(['10.0.0.0/8', '169.254.0.0/16']), allowed: [] })
  expect(load({ K8S_EGRESS_BLOCKED: '' })).toEqual(load())
  expect(load({ K8S_EGRESS_BLOCKED: 'none', K8S_EGRESS_ALLOW: 'none' })).toMatchObject({ blocked: [], allowed: [] })
})

test.each([
  ['K8S_EGRESS_BLOCKED', '10.0.0.0'],
  ['K8S_EGRESS_BLOCKED', '10.0.0.0/8 172.16.0.0/12'],
  ['K8S_EGRESS_BLOCKED', '10.0.0.0/8,none'],
  ['K8S_EGRESS_BLOCKED', ','],
  ['K8S_EGRESS_ALLOW', '10.0.0.0/33'],
  ['K8S_EGRESS_ALLOW', 'litellm.example.com'],
  ['K8S_EGRESS_ALLOW', '::/129'],
])('%s=%j is refused, and the remedy named', (name, value) => {
  const refused = (): unknown => load({ [name]: value })
  expect(refused).toThrow(ConfigError)
  expect(refused).toThrow(new RegExp(`${name} must be ranges in CIDR notation[^]*10\\.1\\.2\\.3/32[^]*${name}=`))
})
