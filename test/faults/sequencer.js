import Sequencer from '@jest/test-sequencer'

/** Waits for minutes, in real time and without doing anything: begun last, it would have the machine to itself. */
const isFirst = ({ path }) => path.endsWith('/silent-model.test.ts')

export default class FaultsSequencer extends Sequencer {
  async sort(tests) {
    // oxlint-disable-next-line unicorn/no-array-sort -- of the sequencer, not of an array
    const sorted = await super.sort(tests)
    return [...sorted.filter(isFirst), ...sorted.filter((each) => !isFirst(each))]
  }
}
