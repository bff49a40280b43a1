import config from './jest.config.js'

/** `npm run test:soak`: some minutes of sessions while processes and servers are killed at random. `SOAK_SEED` repeats a run's kills. */
export default {
  ...config,
  testMatch: ['<rootDir>/test/soak/**/*.test.ts'],
  testPathIgnorePatterns: ['/node_modules/'],
}
