import config from './jest.config.js'

/** `npm run test:e2e`: a fresh clone of what is committed, installed and started as a newcomer does. */
export default {
  ...config,
  testMatch: ['<rootDir>/test/e2e/**/*.test.ts'],
  testPathIgnorePatterns: ['/node_modules/'],
}
