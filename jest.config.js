/** Jest runs ES modules with `node --experimental-vm-modules` (the `test` script). */
export default {
  testEnvironment: 'node',
  testMatch: ['**/*.test.ts'],
  testPathIgnorePatterns: [
    '/node_modules/',
    '/\\.lap/',
    '<rootDir>/test/e2e/',
    '<rootDir>/test/faults/',
    '<rootDir>/test/soak/',
    '<rootDir>/test/cluster/',
    '<rootDir>/test/litellm/',
    '<rootDir>/test/harness/',
  ],
  modulePathIgnorePatterns: ['<rootDir>/.lap', '<rootDir>/harness/[^/]+/node_modules'],
  extensionsToTreatAsEsm: ['.ts'],
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      { jsc: { parser: { syntax: 'typescript' }, target: 'es2024' }, module: { type: 'es6' } },
    ],
  },
  globalSetup: '<rootDir>/test/global-setup.ts',
  globalTeardown: '<rootDir>/test/global-teardown.ts',
  maxWorkers: 2,
  testTimeout: 30_000,
}
