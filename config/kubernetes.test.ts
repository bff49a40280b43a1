import { expect, test } from '@jest/globals'
import { type Config, loadConfig } from './config.ts'
import { ConfigError } from './problems.ts'

const loadAll = (more: Record<string, string>): Config =>
  loadConfig({
    DATABASE_URL: 'postgresql://lap@localhost/lap',
    MASTER_KEY: '12345678',
    LITELLM_API_BASE: 'http://localhost:4000',
    LITELLM_API_KEY: 'sk-1',
    PREINSTALLED_GITHUB_REPO: 'https://git.example.com/repo',
    ...more,
  })
const load = (more: Record<string, string> = {}): Config['k8s']['egress'] => loadAll(more).k8s.egress

test('pods are made from the settings of the cluster, and not from how they are reached or waited for', () => {
  const pods = (more: Record<string, string> = {}) => loadAll({ SANDBOX_DRIVER: 'kubernetes', ...more }).podSettings
  expect(loadAll({ SANDBOX_DRIVER: 'local' }).podSettings).toBe(null)
  for (const [name, value] of [
    ['K8S_RUNTIME_CLASS', 'gvisor'],
    ['K8S_SANDBOX_MEMORY_LIMIT', '9Gi'],
    ['K8S_SERVICE_ACCOUNT', 'agents'],
    ['K8S_NODE_SELECTOR', 'pool=agents'],
    ['K8S_EGRESS_BLOCKED', '10.0.0.0/8'],
    ['K8S_IMAGE_PULL_POLICY', 'Always'],
  ] as const)
    expect({ name, pods: pods({ [name]: value }) }).not.toEqual({ name, pods: pods() })
  const unlike = { K8S_ACCESS: 'nodeport', K8S_NODE_HOST: '127.0.0.1', K8S_UNSCHEDULABLE_GRACE_SECONDS: '99' }
  expect(pods(unlike)).toEqual(pods())
})

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
