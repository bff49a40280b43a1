/** Looks every 25 ms until `probe` gives something; a probe that throws has not. */
export const until = async <T>(
  what: string,
  deadlineMs: number,
  probe: () => Promise<T | null | undefined | false> | T | null | undefined | false,
): Promise<T> => {
  let last: unknown
  for (const end = Date.now() + deadlineMs; Date.now() < end;) {
    try {
      const found = await probe()
      if (found !== null && found !== undefined && found !== false) return found
      last = undefined
    } catch (error) {
      last = error
    }
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
  throw new Error(`Not within ${deadlineMs / 1_000} s: ${what}`, { cause: last })
}
