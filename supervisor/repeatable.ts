/** Work that has to be done once: all who ask while it runs or is done share it, and who asks after it has failed begins it again. */
export const repeatable = (work: () => Promise<void>): (() => Promise<void>) => {
  let attempt: Promise<void> | null = null
  return () =>
    (attempt ??= work().catch((error: unknown) => {
      attempt = null
      throw error
    }))
}
