import { defineConfig } from 'oxlint'

const folders = [
  'activities', 'api', 'bench', 'bin', 'config', 'db', 'demo', 'domain', 'harness', 'kubernetes',
  'local', 's3', 'sandbox', 'supervisor', 'telemetry', 'temporal', 'test', 'tools', 'vault', 'webhooks', 'workflows',
] // prettier-ignore

/**
 * Who may import whom. `values`: anything; `types`: `import type` only. What is not named is forbidden.
 * `bin` wires everything, tests may enter anywhere.
 */
const imports: Record<string, { values: string[]; types?: string[] }> = {
  domain: { values: [] },
  workflows: { values: ['domain'], types: ['activities'] },
  activities: { values: ['domain', 'db', 'sandbox', 'vault', 'webhooks', 'telemetry'], types: ['config', 'temporal'] },
  temporal: { values: ['domain', 'db', 'workflows', 'telemetry'], types: ['activities', 'config'] },
  api: {
    values: ['domain', 'db', 'temporal', 'sandbox', 'vault', 'webhooks', 'telemetry'],
    types: ['config', 'harness'],
  },
  sandbox: { values: ['domain', 'db', 'vault', 'telemetry'], types: ['config'] },
  local: { values: ['domain', 'sandbox', 'telemetry'] },
  kubernetes: { values: ['domain', 'sandbox', 'telemetry'] },
  s3: { values: ['domain'] },
  db: { values: ['domain', 'telemetry'] },
  vault: { values: ['domain', 'telemetry'] },
  webhooks: { values: ['domain'] },
  supervisor: { values: ['domain', 'telemetry'] },
  harness: { values: ['domain', 'supervisor', 'telemetry'] },
  demo: { values: ['domain'] },
  telemetry: { values: ['domain'] },
  config: { values: ['domain'] },
  bench: { values: ['db', 'domain', 'supervisor', 'harness', 'test', 'tools'], types: ['api'] },
}

/** No module of Node, and nothing heavy: workflow code runs in Temporal's deterministic sandbox. */
const notInWorkflows = {
  group: ['node:*', '@temporalio/activity', '@temporalio/client', '@temporalio/worker', 'zod', 'pino', '@mikro-orm/*'],
  message: 'Not available in the workflow sandbox.',
}

const importTable = Object.entries(imports).map(([folder, { values, types = [] }]) => {
  const patterns = []
  const closed = folders.filter((other) => other !== folder && !values.includes(other) && !types.includes(other))
  patterns.push({
    group: closed.map((other) => `**/../${other}/**`),
    message: `${folder}/ may not import this folder (oxlint.config.ts).`,
  })
  if (types.length > 0) {
    const group = types.map((other) => `**/../${other}/**`)
    patterns.push({
      group,
      allowTypeImports: true,
      message: `${folder}/ may import only types from here (oxlint.config.ts).`,
    })
  }
  if (folder === 'workflows') patterns.push(notInWorkflows)
  return { files: [`${folder}/**/*.ts`], rules: { 'no-restricted-imports': ['error', { patterns }] } }
})

export default defineConfig({
  plugins: ['typescript', 'import', 'promise', 'node', 'unicorn', 'oxc'],
  categories: { correctness: 'error', suspicious: 'error' },
  ignorePatterns: ['**/node_modules', '.lap', 'coverage'],
  rules: {
    'typescript/no-explicit-any': 'error',
    'typescript/no-floating-promises': 'error',
    'typescript/no-misused-promises': 'error',
    'typescript/consistent-type-imports': 'error',
    'import/no-cycle': 'error',
    'import/no-unassigned-import': 'off',
    // Rows and wire documents are typed where they come in.
    'typescript/no-unsafe-type-assertion': 'off',
    // Closures here are plain objects without `this`.
    'typescript/unbound-method': 'off',
    'unicorn/consistent-function-scoping': 'off',
    'import/no-named-as-default-member': 'off',
    'promise/always-return': 'off',
    'promise/no-promise-in-callback': 'off',
    'no-console': 'error',
    'no-await-in-loop': 'off',
    'no-shadow': 'off',
    'no-underscore-dangle': 'off',
    'max-params': ['error', { max: 4 }],
    'max-lines': ['error', { max: 300, skipBlankLines: true, skipComments: true }],
    'max-lines-per-function': ['error', { max: 70, skipBlankLines: true, skipComments: true }],
    'unicorn/no-process-exit': 'error',
    'node/no-process-env': 'error',
  },
  overrides: [
    ...importTable,
    {
      files: ['bin/**', 'tools/**'],
      rules: { 'no-console': 'off', 'unicorn/no-process-exit': 'off', 'node/no-process-env': 'off' },
    },
    { files: ['bench/**', 'test/**'], rules: { 'no-console': 'off', 'node/no-process-env': 'off' } },
    { files: ['config/**'], rules: { 'node/no-process-env': 'off' } },
    {
      files: ['**/*.test.ts', 'test/**'],
      rules: {
        'no-restricted-imports': 'off',
        'max-lines': 'off',
        'max-lines-per-function': 'off',
        'node/no-process-env': 'off',
      },
    },
  ],
})
