import { readFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { parse } from 'yaml'
import { type Config, loadConfig } from '../../config/config.ts'
import { CONTAINER_ENV_PREFIX, settingDefaults } from '../../config/env.ts'
import { inspectorRightsFor, type Right, rightsFor } from '../../kubernetes/preflight.ts'
import { FULL, SECRETS, VALUE_SETS, WITH_SECRETS } from './chart-values.ts'
import {
  CHART,
  type Helm,
  LEAST,
  objectOf,
  objectsOf,
  openHelm,
  type Rendered,
  settingsOf,
  type Values,
} from './helm.ts'

let helm: Helm
beforeAll(async () => {
  helm = await openHelm()
}, 600_000)
afterAll(() => helm?.[Symbol.dispose]())

const read = (file: string): string => readFileSync(path.join(CHART, file), 'utf8')
const packageJson = JSON.parse(read('../../package.json')) as { version: string }

describe('values', () => {
  test.each(VALUE_SETS)('with %s Helm finds nothing to say', async (_, values) => {
    expect(await helm.run(['lint', '--strict', CHART], values)).toContain('0 chart(s) failed')
  })

  const wrong: [string, Values, string | RegExp][] = [
    ['a text for a number', { settings: { WARM_POOL_SIZE: 'many' } }, '/settings/WARM_POOL_SIZE'],
    ['too large a number', { settings: { SESSION_MAX_HOURS: 10_000 } }, '/settings/SESSION_MAX_HOURS'],
    ['none of the choices', { settings: { LOG_LEVEL: 'loud' } }, '/settings/LOG_LEVEL'],
    ['a setting that is not there', { settings: { WARM_POOL: 2 } }, /'\/settings'.*'WARM_POOL'/],
    ['a secret among the settings', { settings: { MASTER_KEY: 'x' } }, /'\/settings'.*'MASTER_KEY'/],
    ['a URL without scheme', { settings: { LITELLM_API_BASE: 'litellm:4000' } }, '/settings/LITELLM_API_BASE'],
    ['a short key', { existingSecret: '', secrets: { MASTER_KEY: 'short' } }, '/secrets/MASTER_KEY'],
    ['a key of 31 bytes', { secrets: { ENCRYPTION_KEY: Buffer.alloc(31).toString('base64') } }, '/secrets/ENCRYPTION_KEY'],
    ['another kind of sandbox', { sandbox: { api: 'vm' } }, '/sandbox/api'],
    ['a misspelt value', { sandbox: { nodeSelectors: {} } }, /'\/sandbox'.*'nodeSelectors'/],
    ['an amount with a space', { sandbox: { resources: { requests: { cpu: '1 m' } } } }, '/sandbox/resources/requests/cpu'],
    ['an amount that is a number', { sandbox: { resources: { limits: { cpu: 2 } } } }, '/sandbox/resources/limits/cpu'],
    ['another effect', { sandbox: { tolerations: [{ effect: 'Never' }] } }, '/sandbox/tolerations/0/effect'],
    ['a privileged port', { sandbox: { supervisorPort: 80 } }, '/sandbox/supervisorPort'],
    ['a variable that is no text', { containerEnv: { N: 1_000_000 } }, '/containerEnv/N'],
    ['a variable with a hyphen', { containerEnv: { 'A-B': 'x' } }, /'\/containerEnv'.*'A-B'/],
    ['less than no replicas', { worker: { replicas: -1 } }, '/worker/replicas'],
    ['an unknown part', { workers: {} }, /additional properties 'workers'/],
    ['a digest of something else', { image: { digest: 'md5:abc' } }, '/image/digest'],
    ['a range without a mask', { networkPolicy: { sandboxes: { blockedRanges: ['10.0.0.0'] } } }, '/networkPolicy/sandboxes/blockedRanges/0'],
    ['a name for a range', { networkPolicy: { sandboxes: { allowedRanges: ['litellm/32'] } } }, '/networkPolicy/sandboxes/allowedRanges/0'],
  ] // prettier-ignore
  test.each(wrong)('%s is refused, with the name of the field', async (_, values, said) => {
    await expect(helm.template({ ...LEAST, ...values })).rejects.toThrow(said)
  })

  const contradictions: [string, Values, string][] = [
    ['no gateway', { settings: {} }, 'settings.LITELLM_API_BASE is required'],
    ['no keys', { existingSecret: '' }, 'secrets.DATABASE_URL is required (or name a Secret of your own in existingSecret)'],
    ['keys twice', { secrets: WITH_SECRETS['secrets'] }, 'secrets must be empty when existingSecret is set'],
    ['an Ingress for no host', { ingress: { enabled: true } }, 'ingress.host is required'],
    ['certificates from nowhere', { temporal: { tls: { caKey: 'ca.crt' } } }, 'temporal.tls.existingSecret is required'],
    ['a host of node ports without them', { sandbox: { nodeHost: 'n' } }, 'sandbox.nodeHost is for sandbox.access nodeport only'],
    ['node ports that nobody may reach', { sandbox: { access: 'nodeport' } }, 'networkPolicy.sandboxes.ingressFrom is required'],
    ...['litellm', 'litellm.models.svc', 'litellm.models.svc.cluster.local', '10.1.2.3', '172.20.0.1', '192.168.1.1'].map(
      (host): [string, Values, string] => [
        `a gateway at ${host}, which no sandbox may reach`,
        { settings: { LITELLM_API_BASE: `http://${host}:4000/v1` } },
        `networkPolicy.sandboxes.egress is required: settings.LITELLM_API_BASE names ${host}`,
      ],
    ),
  ] // prettier-ignore
  test.each(contradictions)('%s is refused, with the remedy', async (_, values, said) => {
    await expect(helm.template({ ...LEAST, ...values })).rejects.toThrow(said)
  })

  test.each(['https://litellm.example.com', 'https://api.example.com/v1', 'http://172.15.0.1', 'http://11.0.0.1:4000'])(
    'a gateway at %s needs no rule',
    async (url) => {
      await expect(helm.template({ ...LEAST, settings: { LITELLM_API_BASE: url } })).resolves.not.toHaveLength(0)
    },
  )

  test('a gateway inside needs none either where its addresses are open to every sandbox', async () => {
    const settings = { LITELLM_API_BASE: 'http://10.1.2.3:4000' }
    const networkPolicy = { sandboxes: { allowedRanges: ['10.1.2.3/32'] } }
    await expect(helm.template({ ...LEAST, settings, networkPolicy })).resolves.not.toHaveLength(0)
  })

  test('README.md has a row for each, with its default', () => {
    const leaves = (value: unknown, at: string): [string, unknown][] =>
      typeof value === 'object' && value !== null && !Array.isArray(value) && Object.keys(value).length > 0
        ? Object.entries(value).flatMap(([key, inner]) => leaves(inner, at === '' ? key : `${at}.${key}`))
        : [[at, value]]
    const shown = [...read('README.md').matchAll(/^\| `([\w.-]+)` \| `(.*?)` \| .{5,} \|$/gm)].map(
      ([, name, value]) => [name, JSON.parse(value ?? '')],
    )
    expect(shown).toEqual(leaves(parse(read('values.yaml')), ''))
  })

  test('the version is that of the platform', () => {
    expect(parse(read('Chart.yaml'))).toMatchObject({ version: packageJson.version, appVersion: packageJson.version })
  })
})

/** What only the local driver reads, what another host sets, what a pod has instead, and what the image has already. */
const NOT_OF_A_CHART = ['RENDER_EXTERNAL_URL', 'LOCAL_SANDBOX_DIR', 'LOCAL_SANDBOX_HOST', 'LOCAL_SANDBOX_LISTEN', 'KUBECONFIG', 'WORKFLOW_BUNDLE_PATH'] // prettier-ignore

const configOf = (settings: Record<string, string>): Config => {
  // Files of the pods, here another one that can be read.
  const here = Object.entries(settings).map(([name, value]) => [name, name.endsWith('_PATH') && name !== 'HARNESS_PATH' ? import.meta.filename : value]) // prettier-ignore
  return loadConfig(Object.fromEntries(here) as Record<string, string>)
}

describe('settings', () => {
  test('every one can be set, and no other', async () => {
    const names = Object.keys(settingsOf(await helm.template(FULL))).filter(
      (name) => !name.startsWith(CONTAINER_ENV_PREFIX),
    )
    const all = settingDefaults().map(({ name }) => name)
    expect(names.toSorted()).toEqual(all.filter((name) => !NOT_OF_A_CHART.includes(name)).toSorted())
  })

  test('what is not said has the default of the platform, but for what a pod knows better', async () => {
    const settings = settingsOf(await helm.template(WITH_SECRETS))
    const others = settingDefaults().filter((setting) => {
      const value = settings[setting.name]
      return value !== undefined && value !== setting.default
    })
    expect(Object.fromEntries(others.map(({ name }) => [name, settings[name]]))).toEqual({
      ...(WITH_SECRETS['secrets'] as object),
      LITELLM_API_BASE: 'https://litellm.example.com',
      PREINSTALLED_GITHUB_REPO: 'https://github.com/BerriAI/litellm',
      TEMPORAL_ADDRESS: 'temporal-frontend:7233',
      NODE_ENV: 'production',
      HOST: '0.0.0.0',
      LAP_DATA_DIR: '/var/lib/lap',
      K8S_NAMESPACE: 'platform',
      K8S_IMAGE_PULL_POLICY: 'IfNotPresent',
      K8S_PRIORITY_CLASS: 'platform-lap-sandbox',
      K8S_SERVICE_ACCOUNT: 'lap-sandbox',
    })
    expect(() => loadConfig(settings)).not.toThrow()
  })

  test('values arrive at the platform as they were written', async () => {
    const config = configOf(settingsOf(await helm.template(FULL)))
    expect(config).toMatchObject({
      nodeEnv: 'production',
      host: '0.0.0.0',
      baseUrl: 'https://lap.example.com/lap',
      databaseUrl: SECRETS.DATABASE_URL,
      pool: { size: 10_000, maxProvisioning: 50, ttlMs: 45 * 60_000, recentAgentHours: 12 },
      session: { idleTimeoutMs: 5 * 60_000, maxAgeMs: 8 * 3_600_000 },
      temporal: { address: 'temporal.example.com:7233', apiKey: SECRETS.TEMPORAL_API_KEY, tls: expect.anything() },
      containerEnv: { HTTP_PROXY: 'http://proxy:3128', NUMBER: '1000000' },
      harness: {
        images: { opencode: 'b:2', 'claude-agent-sdk': 'c:3', 'claude-code': 'd:4', codex: 'e:5', 'qwen-code': 'f:6' },
      },
      sandbox: { driver: 'kubernetes' },
      linear: { clientId: 'linear-client', clientSecret: SECRETS.LINEAR_CLIENT_SECRET },
      k8s: {
        namespace: 'sandboxes',
        instance: 'other',
        api: 'pod',
        access: 'nodeport',
        nodeHost: 'node.example.com',
        unschedulableMs: 120_000,
        imagePullPolicy: 'Always',
        imagePullSecrets: ['one', 'two'],
        resources: { requests: { cpu: '100m', memory: '1Gi' }, limits: { cpu: '4', memory: '8Gi' } },
        workSize: '20Gi',
        priorityClassName: 'agents',
        runtimeClassName: 'gvisor',
        serviceAccountName: 'agent',
        nodeSelector: { disk: 'ssd', pool: 'agents' },
        tolerations: [{ key: 'agents', operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 1_000_000 }],
        supervisorPort: 5090,
        egress: {
          blocked: ['10.0.0.0/8', '169.254.169.254/32', 'fc00::/7'],
          allowed: ['10.20.0.0/24', 'fd00:20::/64'],
          dnsPodLabels: { 'k8s-app': 'coredns', tier: 'system' },
        },
      },
    })
  })

  test('where no range is blocked, none is for an agent’s rules either', async () => {
    const networkPolicy = { sandboxes: { blockedRanges: [] } }
    const { k8s } = configOf(settingsOf(await helm.template({ ...WITH_SECRETS, networkPolicy })))
    expect(k8s.egress).toMatchObject({ blocked: [], allowed: [] })
  })

  type Property = { enum?: string[]; minimum?: number; maximum?: number; type?: string }
  const { properties } = (
    JSON.parse(read('values.schema.json')) as { properties: { settings: { properties: Record<string, Property> } } }
  ).properties.settings
  const bounded = Object.entries(properties).filter(([, rule]) => rule.enum !== undefined || rule.type === 'integer')
  test.each(bounded)('%s has the bounds of the platform', async (name, { enum: choices, minimum = 0, maximum = 0 }) => {
    // A bucket, which only one choice of a store asks for.
    const settings = { ...settingsOf(await helm.template(WITH_SECRETS)), CHECKPOINT_S3_BUCKET: 'lap-checkpoints' }
    const load = (value: string | number) => () => loadConfig({ ...settings, [name]: String(value) })
    for (const value of choices ?? [minimum, maximum]) expect(load(value)).not.toThrow()
    for (const value of choices === undefined ? [minimum - 1, maximum + 1] : ['other'])
      expect(load(value)).toThrow(name)
  })

  test('the public URL is that of the Ingress, unless said', async () => {
    const ingress = { enabled: true, host: 'lap.example.com' }
    const urlWith = async (values: Values) => settingsOf(await helm.template({ ...LEAST, ...values }))['BASE_URL']
    expect(await urlWith({})).toBeUndefined()
    expect(await urlWith({ ingress })).toBe('http://lap.example.com')
    expect(await urlWith({ ingress: { ...ingress, tlsSecret: 'cert' } })).toBe('https://lap.example.com')
  })

  test('secrets are in the Secret and nowhere else', async () => {
    const objects = await helm.template(FULL)
    const kinds = objects.filter((object) => {
      const text = JSON.stringify(object)
      return Object.values(SECRETS).some((value) => text.includes(value) || text.includes(Buffer.from(value).toString('base64'))) // prettier-ignore
    })
    expect(kinds.map(({ kind, metadata }) => `${kind} ${metadata.name}`)).toEqual([
      'Secret lap',
      'Secret lap-migrations',
    ])
  })
})

describe('rights', () => {
  /** `verb group/resource`, sorted; in all namespaces or in one. */
  const granted = (rules: Rendered['rules'] = []): string[] =>
    rules
      .flatMap(({ apiGroups, resources, verbs }) =>
        apiGroups.flatMap((group) =>
          resources.flatMap((resource) => verbs.map((verb) => `${verb} ${group}/${resource}`)),
        ),
      )
      .toSorted()
  const named = (rights: Right[]): string[] =>
    rights
      .map(
        ({ verb, group, resource, subresource }) =>
          `${verb} ${group}/${resource}${subresource === undefined ? '' : `/${subresource}`}`,
      ) // prettier-ignore
      .toSorted()

  const cases = (['sandbox', 'pod'] as const).flatMap((api) =>
    (['pod-ip', 'nodeport', ''] as const).map((access) => [api, access] as const),
  )
  test.each(cases)('with %s and access "%s" each process has those that it uses', async (api, access) => {
    const networkPolicy = { enabled: false }
    const objects = await helm.template({ ...LEAST, sandbox: { api, access }, networkPolicy })
    for (const [component, rights] of [
      ['worker', rightsFor(api, access || 'pod-ip')],
      ['api', inspectorRightsFor(api, access || 'pod-ip')],
    ] as const) {
      const here = rights.filter(({ everywhere }) => everywhere !== true)
      const everywhere = rights.filter((right) => right.everywhere === true)
      expect(granted(objectOf(objects, 'Role', `-${component}`).rules)).toEqual(named(here))
      expect(granted(objectOf(objects, 'ClusterRole', `-${component}`).rules)).toEqual(named(everywhere))
    }
  })

  test('the API can change nothing', async () => {
    const objects = await helm.template(FULL)
    const verbs = [...objectsOf(objects, 'Role'), ...objectsOf(objects, 'ClusterRole')]
      .filter(({ metadata }) => metadata.name.endsWith('-api'))
      .flatMap(({ rules = [] }) => rules.flatMap((rule) => rule.verbs))
    expect(new Set(verbs)).toEqual(new Set(['get', 'list']))
  })

  test('without rights in the whole cluster only what is optional is missing', async () => {
    const objects = await helm.template({ ...LEAST, rbac: { clusterWide: false } })
    expect(objectsOf(objects, 'ClusterRole')).toEqual([])
    expect(objectsOf(objects, 'ClusterRoleBinding')).toEqual([])
    const missing = [...rightsFor('sandbox', 'pod-ip'), ...inspectorRightsFor('sandbox', 'pod-ip')].filter(
      ({ everywhere }) => everywhere === true,
    )
    expect(missing.every(({ optional }) => optional === true)).toBe(true)
  })
})
