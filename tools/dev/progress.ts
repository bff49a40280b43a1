/** Calm lines of progress: what, how it went, and how long it took. */
const WIDTH = 18

const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`.padStart(7)

export const say = (text: string): void => console.log(`  ${text}`)

/** Does one step and prints its line when it is done. @param work returns what is worth knowing about it */
export const step = async (what: string, work: () => Promise<string>): Promise<void> => {
  const startedAt = Date.now()
  const result = await work()
  console.log(`  ${what.padEnd(WIDTH)}${seconds(Date.now() - startedAt)}   ${result}`.trimEnd())
}
