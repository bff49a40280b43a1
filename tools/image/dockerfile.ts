/** One instruction of a Dockerfile, with its continued lines joined. */
export type Instruction = { name: string; flags: Record<string, string>; text: string; line: number }

export type Stage = { name: string | null; from: string; instructions: Instruction[] }

export type Dockerfile = { args: Record<string, string>; stages: Stage[]; last: Stage }

/** What a build without Docker understands; another one is refused rather than passed over. */
const KNOWN = new Set(
  'ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL RUN STOPSIGNAL USER VOLUME WORKDIR'.split(' '),
)
const FLAG = /^--([a-z-]+)=(\S+)\s+/

class DockerfileError extends Error {
  override name = 'DockerfileError'
}

export const refuse = (line: number, why: string): never => {
  throw new DockerfileError(`Dockerfile line ${line}: ${why}`)
}

const parseInstruction = (text: string, line: number): Instruction => {
  const [, word = '', after = ''] = /^(\S+)\s*([\s\S]*)$/.exec(text) ?? []
  const name = word.toUpperCase()
  if (!KNOWN.has(name)) refuse(line, `${word} is not known here; known are ${[...KNOWN].join(', ')}`)
  const flags: Record<string, string> = {}
  let rest = after
  for (let flag = FLAG.exec(rest); flag !== null; flag = FLAG.exec(rest)) {
    flags[flag[1] ?? ''] = flag[2] ?? ''
    rest = rest.slice(flag[0].length)
  }
  if (name !== 'COPY' && name !== 'HEALTHCHECK' && Object.keys(flags).length > 0)
    refuse(line, `${name} takes no flags here, and has --${Object.keys(flags).join(', --')}`)
  if (rest.startsWith('<<')) refuse(line, 'here-documents are not known here')
  return { name, flags, text: rest.trim(), line }
}

const instructionsOf = (source: string): Instruction[] => {
  const found: Instruction[] = []
  let text = ''
  let start = 0
  for (const [index, raw] of source.split('\n').entries()) {
    if (/^\s*(#|$)/.test(raw)) continue
    if (text === '') start = index + 1
    const continued = /\\\s*$/.test(raw)
    text += raw.replace(/\\\s*$/, '')
    if (continued) continue
    found.push(parseInstruction(text.trim(), start))
    text = ''
  }
  if (text !== '') refuse(start, 'the last instruction does not end')
  return found
}

/** `$NAME`, `${NAME}` and `${NAME:-value}`. */
export const substitute = (text: string, values: Record<string, string>): string =>
  text.replaceAll(
    /\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))/g,
    (_, braced?: string, fallback?: string, bare?: string) => values[braced ?? bare ?? ''] || (fallback ?? ''),
  )

/** `NAME=value …`, values in quotes if they have spaces. */
export const pairsOf = (text: string, values: Record<string, string>): Record<string, string> => {
  const pairs: Record<string, string> = {}
  for (const [, name = '', quoted, bare = ''] of text.matchAll(/([\w.-]+)=(?:"([^"]*)"|(\S*))/g))
    pairs[name] = substitute(quoted ?? bare, values)
  return pairs
}

/** `["a", "b"]` as it stands, else a line for the shell. */
export const commandOf = (text: string): string[] =>
  text.startsWith('[') ? (JSON.parse(text) as string[]) : ['/bin/sh', '-c', text]

/** @throws DockerfileError with the line, for what is not understood */
export const parseDockerfile = (source: string): Dockerfile => {
  const args: Record<string, string> = {}
  const stages: Stage[] = []
  for (const instruction of instructionsOf(source)) {
    const stage = stages.at(-1)
    if (instruction.name === 'FROM') {
      const [, from = '', name = null] = /^(\S+)(?:\s+AS\s+(\S+))?$/i.exec(substitute(instruction.text, args)) ?? []
      if (from === '') refuse(instruction.line, `FROM ${instruction.text} names no image`)
      stages.push({ name, from, instructions: [] })
    } else if (stage !== undefined) stage.instructions.push(instruction)
    else if (instruction.name === 'ARG') Object.assign(args, pairsOf(instruction.text, args))
    else refuse(instruction.line, `${instruction.name} comes before the first FROM`)
  }
  const last = stages.at(-1)
  if (last === undefined) throw new DockerfileError('The Dockerfile has no FROM')
  return { args, stages, last }
}
