import config from './jest.config.js'

/** `npm run test:faults`: processes, servers and connections are ended, stopped and cut, and what must survive that does. `FAULTS_TURN_SECONDS`: how long the turn is whose readers are cut off a thousand times. */
export default {
  ...config,
  testMatch: ['<rootDir>/test/faults/**/*.test.ts'],
  testPathIgnorePatterns: ['/node_modules/'],
  testSequencer: '<rootDir>/test/faults/sequencer.js',
  // Each wait has a limit of its own; this one is for a machine on which a process takes a minute to start.
  testTimeout: 300_000,
}
