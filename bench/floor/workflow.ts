import { condition, defineUpdate, setHandler } from '@temporalio/workflow'

/** The least that Temporal can be asked to do and answer. */
export const echo = defineUpdate<string, [string]>('echo')

export const floor = async (): Promise<void> => {
  setHandler(echo, (text) => text)
  await condition(() => false)
}
