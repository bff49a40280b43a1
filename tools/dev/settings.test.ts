import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { type DevSettings, readSettings } from './settings.ts'

let root: string
beforeEach(async () => {
  root = await mkdtemp(path.join(os.tmpdir(), 'lap-settings-'))
})
afterEach(async () => rm(root, { recursive: true, force: true }))

const read = async (env: Record<string, string>): Promise<DevSettings> => {
  const all = { LAP_DATA_DIR: path.join(root, 'data'), ...env }
  const lines = Object.entries(all).map(([name, value]) => `${name}=${value}\n`)
  await writeFile(path.join(root, '.env'), lines.join(''))
  return readSettings(root)
}

test('with sandboxes on this machine nothing has to be given, and a kubeconfig is nobody’s business', async () => {
  const { given } = await read({ KUBECONFIG: '/none' })
  expect(given).not.toHaveProperty('SANDBOX_DRIVER')
})

test('with sandboxes in a cluster, model and repository have to be given: pods do not reach those of this machine', async () => {
  const cluster = { SANDBOX_DRIVER: 'kubernetes', KUBECONFIG: path.join(root, '.env') }
  await expect(read(cluster)).rejects.toMatchObject({
    name: 'ConfigError',
    problems: ['LITELLM_API_BASE', 'LITELLM_API_KEY', 'PREINSTALLED_GITHUB_REPO'].map((key) =>
      expect.objectContaining({ key }),
    ),
  })
  const given = {
    LITELLM_API_BASE: 'https://litellm.example.com',
    LITELLM_API_KEY: 'sk-given',
    PREINSTALLED_GITHUB_REPO: 'https://example.com/repo.git',
  }
  await expect(read({ ...cluster, ...given })).resolves.toMatchObject({ given })
})
