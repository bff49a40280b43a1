import config from './jest.config.js'

/** `npm run test:cluster`: against a real Kubernetes, the one of KUBECONFIG or one that is built and started here. */
export default {
  ...config,
  testMatch: ['<rootDir>/test/cluster/**/*.test.ts'],
  testPathIgnorePatterns: ['/node_modules/'],
  globalSetup: '<rootDir>/test/cluster/global-setup.ts',
  globalTeardown: '<rootDir>/test/cluster/global-teardown.ts',
  testTimeout: 60_000,
}
