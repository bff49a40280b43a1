import { createHash } from 'node:crypto'
import { type Context, hashOf } from './context.ts'
import type { Dockerfile, Instruction, Stage } from './dockerfile.ts'

/** What a build is made of, without what it makes. */
export type Inputs = {
  dockerfile: Dockerfile
  context: Context
  /** Anything else that changes what comes out. */
  salt: string
}

/** The stage that `FROM` or `--from` names; undefined for an image. */
export const stageNamed = ({ stages }: Dockerfile, name: string): Stage | undefined =>
  stages.find((each, index) => each.name === name || String(index) === name)

const copiedBy = async ({ text, flags }: Instruction, inputs: Inputs): Promise<string> => {
  const from = flags['from']
  if (from === undefined) return hashOf(inputs.context, text.split(/\s+/).slice(0, -1))
  const stage = stageNamed(inputs.dockerfile, from)
  return stage === undefined ? '' : keyOf(stage, inputs)
}

/** What the stage's file system is after each of its instructions, as a hash of all that went into it. */
export const keysOf = async (stage: Stage, inputs: Inputs): Promise<string[]> => {
  const { dockerfile, salt } = inputs
  const before = stageNamed(dockerfile, stage.from)
  let key = before === undefined ? stage.from : await keyOf(before, inputs)
  const keys: string[] = []
  for (const instruction of stage.instructions) {
    const { name, flags, text } = instruction
    const copied = name === 'COPY' ? await copiedBy(instruction, inputs) : ''
    const all = JSON.stringify([key, salt, dockerfile.args, name, flags, text, copied])
    key = createHash('sha256').update(all).digest('hex').slice(0, 16)
    keys.push(key)
  }
  return keys
}

/** The same of the whole stage. */
export const keyOf = async (stage: Stage, inputs: Inputs): Promise<string> =>
  (await keysOf(stage, inputs)).at(-1) ?? stage.from
