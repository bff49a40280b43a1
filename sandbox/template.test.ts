import { expect, test } from '@jest/globals'
import { createSealer } from '../vault/seal.ts'
import { templateHash, templateOf } from './template.ts'
import type { Template, TemplateContext, TemplateSource } from './template.ts'

const agent = (over: Partial<TemplateSource> = {}): TemplateSource => ({
  harness_id: 'opencode',
  harness_image: 'opencode-sandbox:dev',
  repo_url: null,
  branch: 'main',
  setup_cmd: null,
  env_vars: {},
  allow_out: [],
  deny_out: [],
  resources: null,
  ...over,
})
const open = (text: string) => text
const hashOf = (
  over: Partial<TemplateSource>,
  containerEnv: Record<string, string> = {},
  podSettings: TemplateContext['podSettings'] = null,
) =>
  templateHash(
    'a master key',
    templateOf(agent(over), { preinstalledRepo: 'https://example.com/r.git', containerEnv, podSettings, open }),
  )

test('the order of keys and of egress rules does not matter', () => {
  expect(hashOf({ env_vars: { A: '1', B: '2' }, allow_out: ['a.com', 'b.com'] })).toBe(
    hashOf({ allow_out: ['b.com', 'a.com'], env_vars: { B: '2', A: '1' } }),
  )
})

test.each<[string, Partial<TemplateSource>]>([
  ['harness', { harness_id: 'codex' }],
  ['image', { harness_image: 'other:1' }],
  ['repository', { repo_url: 'https://example.com/other.git' }],
  ['branch', { branch: 'dev' }],
  ['set-up command', { setup_cmd: 'make' }],
  ['environment', { env_vars: { A: '1' } }],
  ['allowed hosts', { allow_out: ['a.com'] }],
  ['denied hosts', { deny_out: ['a.com'] }],
  ['resources', { resources: { limits: { memory: '8Gi' } } }],
])('another %s is another template', (_what, over) => {
  expect(hashOf(over)).not.toBe(hashOf({}))
})

test('the platform-wide environment is part of the template, and the agent overrides it', () => {
  expect(hashOf({}, { A: '1' })).not.toBe(hashOf({}))
  expect(hashOf({ env_vars: { A: '2' } }, { A: '1' })).toBe(hashOf({ env_vars: { A: '2' } }))
})

test('what the installation says of its pods is part of the template, where there are pods', () => {
  const pods = (more: object = {}): string =>
    hashOf({}, {}, { runtimeClassName: null, nodeSelector: { disk: 'ssd', pool: 'agents' }, ...more })
  expect(pods()).not.toBe(hashOf({}))
  expect(pods({ runtimeClassName: 'gvisor' })).not.toBe(pods())
  expect(pods({ nodeSelector: { pool: 'agents', disk: 'ssd' } })).toBe(pods())
})

test('an agent without a repository of its own gets the preinstalled one', () => {
  expect(hashOf({ repo_url: 'https://example.com/r.git' })).toBe(hashOf({}))
})

test('the same value sealed twice is the same template', () => {
  const sealer = createSealer(Buffer.alloc(32, 7))
  const hash = () =>
    templateHash(
      'k',
      templateOf(agent({ env_vars: { A: sealer.seal('1') } }), {
        preinstalledRepo: 'r',
        containerEnv: {},
        podSettings: null,
        open: sealer.open,
      }),
    )
  expect(hash()).toBe(hash())
})

test('another master key gives another hash, so values cannot be tried against it', () => {
  const template: Template = templateOf(agent(), { preinstalledRepo: 'r', containerEnv: {}, podSettings: null, open })
  expect(templateHash('one', template)).not.toBe(templateHash('two', template))
})
