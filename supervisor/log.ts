const linesMax = 1_000
const lineCharsMax = 4_000

/** What supervisor and harness say: to standard output, and the last lines in memory for `GET /logs`. */
export type Log = {
  write: (line: string) => void
  tail: (count: number) => string[]
}

export const createLog = (out: (text: string) => void): Log => {
  const lines: string[] = []
  return {
    write(line) {
      const stamped = `${new Date().toISOString()} ${line.slice(0, lineCharsMax)}`
      lines.push(stamped)
      if (lines.length > linesMax) lines.shift()
      out(`${stamped}\n`)
    },
    tail: (count) => lines.slice(-Math.max(1, count)),
  }
}

/** Splits a stream of text into lines; the last one counts when it is complete. */
export const lineSplitter = (onLine: (line: string) => void) => {
  let rest = ''
  return (text: string): void => {
    const parts = (rest + text).split('\n')
    rest = parts.pop() ?? ''
    for (const line of parts) if (line.trim() !== '') onLine(line)
    if (rest.length > lineCharsMax) {
      onLine(rest)
      rest = ''
    }
  }
}
