/** Those of a log since a moment. A line begins with its time in ISO 8601, or belongs to the line before. */
export const linesSince = (lines: string[], from: number): string[] => {
  let wanted = false
  return lines.filter((line) => {
    const time = Date.parse(/^\d{4}-\d\d-\d\dT[\d:.]+Z(?= )/.exec(line)?.[0] ?? '')
    if (!Number.isNaN(time)) wanted = time >= from
    return wanted
  })
}
