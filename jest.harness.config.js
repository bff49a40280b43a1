import config from './jest.config.js'

/** `npm run test:harness`: the real harness programs in front of a real LiteLLM proxy. */
export default {
  ...config,
  testMatch: ['<rootDir>/test/litellm/**/*.test.ts', '<rootDir>/test/harness/**/*.test.ts'],
  testPathIgnorePatterns: ['/node_modules/'],
  globalSetup: '<rootDir>/test/litellm/global-setup.ts',
  testTimeout: 180_000,
}
