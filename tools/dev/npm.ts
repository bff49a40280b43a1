const POLL_MS = 500

/**
 * Calls back once when the npm that started this process was told to end: it tells its shell, which ends and tells nobody. (Ctrl-C reaches everybody by itself.)
 * Without npm there is nothing to see.
 */
export const onNpmEnded = (then: () => void): void => {
  if (process.env['npm_lifecycle_event'] === undefined) return
  const shell = process.ppid
  const looking = setInterval(() => {
    if (process.ppid === shell) return
    clearInterval(looking)
    then()
  }, POLL_MS)
  looking.unref()
}
