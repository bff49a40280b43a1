import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, expect, test } from '@jest/globals'
import { loadConfig } from '../../config/config.ts'
import { settingDefaults } from '../../config/env.ts'
import { composeOf, environmentIn, GIVEN, interpolate, overlaid, settingsIn } from './compose.ts'

const base = composeOf('docker-compose.yml')
const over = composeOf('docker-compose.kubernetes.yml')
const compose = overlaid(base, over)
const PROCESSES = ['api', 'worker']

const dir = mkdtempSync(path.join(tmpdir(), 'lap-compose-'))
const kubeconfig = path.join(dir, 'kubeconfig')
writeFileSync(kubeconfig, 'apiVersion: v1\nkind: Config\n')
afterAll(() => rmSync(dir, { recursive: true }))
const given = { ...GIVEN, KUBECONFIG_FILE: kubeconfig, K8S_NAMESPACE: 'agents', K8S_NODE_HOST: 'node.example.com' }

test('API and worker, and no other service, have their sandboxes in the cluster of the kubeconfig', () => {
  expect(Object.keys(over.services).toSorted()).toEqual(PROCESSES)
  for (const name of PROCESSES) {
    const settings = settingsIn(compose, name, given)
    const mounts = (compose.services[name]?.volumes ?? []).map((volume) => interpolate(volume, given).split(':'))
    expect(mounts).toContainEqual([kubeconfig, settings['KUBECONFIG'], 'ro'])
    // In the container the file is where the setting says; here it is where it comes from.
    const config = loadConfig({ ...settings, KUBECONFIG: kubeconfig })
    expect(config.sandbox.driver).toBe('kubernetes')
    expect(config.k8s).toMatchObject({ namespace: 'agents', access: 'nodeport', nodeHost: 'node.example.com' })
  }
})

test('API and worker agree, and know every setting', () => {
  const known = new Set(settingDefaults().map(({ name }) => name))
  const [api, worker] = PROCESSES.map((name) => environmentIn(over, name, given))
  expect(api).toEqual(worker)
  expect(Object.keys(api ?? {}).filter((name) => !known.has(name))).toEqual([])
})

test('every setting of Kubernetes that is set here comes to them', () => {
  const names = settingDefaults().flatMap(({ name }) =>
    name.startsWith('K8S_') && name !== 'K8S_ACCESS' ? [name] : [],
  )
  const set = Object.fromEntries(names.map((name) => [name, `the ${name}`]))
  expect(environmentIn(over, 'worker', { ...GIVEN, ...set })).toMatchObject(set)
})

test('without the path of a kubeconfig nothing starts, and the message says what it is', () => {
  const [volume = ''] = over.services['worker']?.volumes ?? []
  expect(() => interpolate(volume, GIVEN)).toThrow(/KUBECONFIG_FILE: .*kubeconfig/)
})

test('what is not said has the default of the platform, but for the pull policy', () => {
  const settings = settingsIn(compose, 'api', { ...GIVEN, KUBECONFIG_FILE: kubeconfig })
  expect(loadConfig({ ...settings, KUBECONFIG: kubeconfig }).k8s).toEqual({
    ...loadConfig(settingsIn(base, 'api')).k8s,
    access: 'nodeport',
    imagePullPolicy: 'IfNotPresent',
  })
})
