import { describe, expect, test } from '@jest/globals'
import { isAppError } from '../domain/errors.ts'
import { validate } from './middleware/validate.ts'
import { AgentCreate } from './schemas/agent.ts'
import { hostBindingFaults } from './schemas/env.ts'
import { MessageSend } from './schemas/message.ts'
import { SessionCreate, SessionListQuery } from './schemas/session.ts'

const faults = (act: () => unknown): Record<string, string> => {
  try {
    act()
  } catch (error) {
    if (!isAppError(error) || error.code !== 'invalid') throw error
    return Object.fromEntries((error.details ?? []).map(({ path, message }) => [path, message]))
  }
  return {}
}
const agent = (over: Record<string, unknown>) => faults(() => validate(AgentCreate, { model: 'm', ...over }))

test('every unknown field is named with what is allowed there', () => {
  const found = agent({ modle: 'x', projects: [{ id: '1', name: 'p', urk: 1 }] })
  expect(Object.keys(found).toSorted()).toEqual(['modle', 'projects[0].urk'])
  expect(found['modle']).toContain('allowed here: model, name')
  expect(found['projects[0].urk']).toContain('description')
})

describe('environment variables', () => {
  test.each([
    ['a bad name', { '1A': 'x' }, 'env_vars.1A'],
    ['a reserved name', { PORT: '1' }, 'env_vars.PORT'],
    ['a value that is no text', { A: 1 }, 'env_vars.A'],
    ['a NUL character', { A: 'a\0' }, 'env_vars.A'],
    ['too many names', Object.fromEntries(Array.from({ length: 51 }, (_, i) => [`A${i}`, ''])), 'env_vars'],
    ['too much text', { A: 'x'.repeat(16_384) }, 'env_vars'],
  ])('%s is refused with its path', (_what, env_vars, path) => {
    expect(agent({ env_vars })).toHaveProperty([path])
    expect(faults(() => validate(SessionCreate, { env_vars }))).toHaveProperty([path])
  })
  test('fifty good names pass', () => {
    expect(agent({ env_vars: Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`A_${i}`, 'x'])) })).toEqual({})
  })
})

describe('repositories', () => {
  test.each(['https://github.com/a/b', 'ssh://git@example.com:22/a.git', 'git@github.com:a/b.git', 'file:///srv/repo'])(
    '%s is one',
    (repo_url) => {
      expect(agent({ repo_url })).toEqual({})
    },
  )
  test.each([
    'http://x/y',
    'ext::sh -c id',
    '--upload-pack=id',
    '/srv/repo',
    'git@-x:y z',
    'https://u:secret@example.com/a',
    'https://ghp_token@github.com/a/b',
    'ssh://git:secret@example.com/a',
  ])('%s is refused', (repo_url) => {
    expect(agent({ repo_url })).toHaveProperty('repo_url')
  })
  test.each(['main', 'feature/x-1', 'v1.0'])('branch %s is one', (branch) => {
    expect(agent({ branch })).toEqual({})
  })
  test.each(['-x', 'a b', '', 'a~1', 'a:b'])('branch "%s" is refused', (branch) => {
    expect(agent({ branch })).toHaveProperty('branch')
  })
})

describe('hosts', () => {
  test.each(['api.example.com', '*.example.com', '10.0.0.0/8', 'a_b', '192.0.2.1', '2001:db8::1', 'fc00::/7'])(
    '%s is an entry',
    (host) => {
      expect(agent({ allow_out: [host] })).toEqual({})
    },
  )
  test.each(['https://x', 'a b', '', '*', 'a..*', 'x/1234'])('"%s" is refused with its path', (host) => {
    expect(agent({ deny_out: [host] })).toHaveProperty(['deny_out[0]'])
  })
  test.each(['10.0.0.0/33', '10.0.0', '256.1.1.1', '1::2::3', 'fc00::/129', 'host:443'])(
    '%s is no address, and is not taken for a name',
    (host) => {
      expect(agent({ allow_out: [host] })).toEqual({ 'allow_out[0]': expect.stringContaining('must be an address') })
    },
  )
  test('a binding needs its variable and an allowed host', () => {
    const allow = ['api.example.com', '*.wild.com']
    expect(hostBindingFaults({ A: ['API.example.com', 'x.wild.com'] }, ['A'], allow)).toEqual([])
    expect(hostBindingFaults({ A: ['wild.com'], B: ['x'] }, ['A'], allow).map(({ path }) => path)).toEqual([
      'env_var_hosts.A[0]',
      'env_var_hosts.B',
    ])
  })
})

test('a message needs something in it', () => {
  expect(faults(() => validate(MessageSend, {}))).toHaveProperty([''])
  expect(faults(() => validate(MessageSend, { text: 'x' }))).toEqual({})
  expect(faults(() => validate(MessageSend, { parts: [{ kind: 'text' }] }))).toHaveProperty(['parts[0].type'])
  expect(
    faults(() => validate(MessageSend, { attachments: [{ mime_type: 'text/html', base64: 'AA==' }] })),
  ).toHaveProperty(['attachments[0].mime_type'])
  expect(
    faults(() => validate(MessageSend, { attachments: [{ mime_type: 'image/png', base64: '?' }] })),
  ).toHaveProperty(['attachments[0].base64'])
})

test('numbers of a query are whole and within their bounds', () => {
  for (const limit of ['0', '201', 'x', '1.5', ''])
    expect(faults(() => validate(SessionListQuery, { limit }, 'query'))).toHaveProperty(['query.limit'])
  expect(validate(SessionListQuery, {}, 'query')).toMatchObject({ limit: 50, offset: 0 })
})
