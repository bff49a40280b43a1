import { envSchema, exampleOf } from './env.ts'

/** Settings as text, by name. */
export type Given = Record<string, string | undefined>

export type SettingProblem = { key: string; reason: string }

/** Not one setting but all that are wrong, each with its reason and an example. No value is shown: it may be a secret. */
export class ConfigError extends Error {
  override name = 'ConfigError'
  readonly problems: SettingProblem[]
  constructor(problems: SettingProblem[]) {
    const lines = problems.map(({ key, reason }) => `  ${key} ${reason}\n      for example ${exampleOf(key)}`)
    super(`${problems.length === 1 ? '1 setting is' : `${problems.length} settings are`} wrong:\n${lines.join('\n')}`)
    this.problems = problems
  }
}

/** Settings that break their own rule; the first reason of each. */
export const schemaProblems = (given: Given): SettingProblem[] => {
  const seen = new Set<string>()
  return (envSchema.safeParse(given).error?.issues ?? []).flatMap((issue) => {
    const key = String(issue.path[0])
    if (seen.has(key)) return []
    seen.add(key)
    return [{ key, reason: given[key] === undefined ? 'is required and not set' : issue.message }]
  })
}

/** Two settings that are of use only together. */
export const pairProblems = (given: Given, [one, other]: readonly [string, string]): SettingProblem[] => {
  if ((given[one] === undefined) === (given[other] === undefined)) return []
  const [there, missing] = given[one] === undefined ? [other, one] : [one, other]
  return [{ key: missing, reason: `is required with ${there}` }]
}
