import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import path from 'node:path'

/** What an image has in it, read from its Dockerfile without building it. */

export type Instruction = { keyword: string; rest: string }

/** Comments dropped, continued lines joined. */
export const instructionsOf = (dockerfile: string): Instruction[] =>
  dockerfile
    .split('\n')
    .filter((line) => !/^\s*(#|$)/.test(line))
    .join('\n')
    .replaceAll(/\s*\\\n\s*/g, ' ')
    .split('\n')
    .map((line) => {
      const [keyword = '', ...rest] = line.split(' ')
      return { keyword, rest: rest.join(' ') }
    })

/** Files of the repository, with those that are not committed yet but would be. */
export const trackedFiles = (root: string): string[] =>
  execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { cwd: root, encoding: 'utf8' })
    .split('\n')
    .filter((file) => file !== '' && existsSync(path.join(root, file)))

/** Rules of a `.dockerignore` as far as ours has them: names, `*` within a name, `**` before one. */
export const isIgnored = (file: string, rules: string[]): boolean =>
  rules
    .filter((rule) => rule !== '' && !rule.startsWith('#'))
    .some((rule) => {
      const pattern = rule
        .replaceAll(/[.+^$()|[\]]/g, '\\$&')
        .replaceAll('**/', '\0')
        .replaceAll('*', '[^/]*')
        .replaceAll('\0', '(.*/)?')
      return new RegExp(`^${pattern}(/|$)`).test(file)
    })

/** Files of the repository that the last stage has. Each keeps its path: the work directory stands for the repository. */
export const imageContent = (dockerfile: string, files: string[], ignore: string[]): string[] => {
  const instructions = instructionsOf(dockerfile)
  const last = instructions.slice(instructions.findLastIndex(({ keyword }) => keyword === 'FROM'))
  const content = last.flatMap(({ keyword, rest }) => {
    if (keyword !== 'COPY' || rest.startsWith('--from=')) return []
    const words = rest.split(/\s+/)
    const target = words.at(-1) ?? ''
    return words.slice(0, -1).flatMap((source) => {
      const copied = files.filter((file) => file === source || file.startsWith(`${source}/`))
      return copied.map((file) =>
        target.endsWith('/') ? path.join(target, path.basename(file)) : path.join(target, path.relative(source, file)),
      )
    })
  })
  return [...new Set(content)].filter((file) => !isIgnored(file, ignore))
}

const IMPORT = /^(?:import|export)\s+(type\s)?(?:[^'"]*?\sfrom\s+)?['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gm

const packageOf = (specifier: string): string =>
  specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')

/** Files and packages that these entry points load, found by following their imports; types are not loaded. */
export const neededBy = (root: string, entryPoints: string[]): { files: string[]; packages: string[] } => {
  const files = new Set<string>()
  const packages = new Set<string>()
  const visit = (file: string): void => {
    if (files.has(file)) return
    files.add(file)
    for (const [, isType, named, dynamic] of readFileSync(path.join(root, file), 'utf8').matchAll(IMPORT)) {
      const specifier = named ?? dynamic ?? ''
      if (isType !== undefined) continue
      if (specifier.startsWith('.')) visit(path.join(path.dirname(file), specifier))
      else if (!specifier.startsWith('node:') && !builtinModules.includes(specifier)) packages.add(packageOf(specifier))
    }
  }
  for (const entry of entryPoints) visit(entry)
  return { files: [...files], packages: [...packages] }
}
