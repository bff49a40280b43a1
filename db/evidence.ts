/** What was seen of a sandbox before it went; JSON of the driver's making. */
export type Evidence = Record<string, unknown>
