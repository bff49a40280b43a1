import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { AppError, errorText } from '../domain/errors.ts'

/** A harness that agents may choose: a folder with a `manifest.ts`, named like its id. */
export type HarnessEntry = {
  id: string
  /** For people. */
  name: string
  /** Can also be used as a terminal. */
  supportsTui: boolean
  /** Absolute. */
  dir: string
}

const MANIFEST = 'manifest.ts'
const builtIn = import.meta.dirname

const textAt = (from: unknown, key: string): string | undefined => {
  const value: unknown = typeof from === 'object' && from !== null ? Reflect.get(from, key) : undefined
  return typeof value === 'string' ? value : undefined
}

const readEntry = async (dir: string): Promise<HarnessEntry> => {
  const file = path.join(dir, MANIFEST)
  const module: unknown = await import(pathToFileURL(file).href).catch((error: unknown) => {
    throw new AppError('invalid', `${file} cannot be loaded: ${errorText(error)}`, { cause: error })
  })
  const manifest: unknown = typeof module === 'object' && module !== null ? Reflect.get(module, 'default') : undefined
  const id = textAt(manifest, 'id')
  if (id === undefined) throw new AppError('invalid', `${file} has no default export with an id`)
  if (id !== path.basename(dir)) throw new AppError('invalid', `${file} has the id "${id}", its folder another name`)
  const supportsTui = typeof manifest === 'object' && manifest !== null && Reflect.get(manifest, 'supportsTui') === true
  return { id, name: textAt(manifest, 'name') ?? id, supportsTui, dir }
}

/**
 * The harnesses of this folder and of further ones, by id.
 * @param paths folders with harness folders in them (`HARNESS_PATH`)
 * @throws AppError `invalid`: a folder is missing, a manifest is wrong, or two harnesses have one id
 */
export const findHarnesses = async (paths: string[]): Promise<HarnessEntry[]> => {
  const found = new Map<string, HarnessEntry>()
  for (const folder of new Set([builtIn, ...paths.map((each) => path.resolve(each))])) {
    const entries = await readdir(folder, { withFileTypes: true }).catch((error: unknown) => {
      throw new AppError('invalid', `HARNESS_PATH: ${folder} cannot be read: ${errorText(error)}`, { cause: error })
    })
    for (const each of entries) {
      const dir = path.join(folder, each.name)
      if (!existsSync(path.join(dir, MANIFEST))) continue
      const entry = await readEntry(dir)
      const other = found.get(entry.id)
      if (other !== undefined)
        throw new AppError('invalid', `two harnesses have the id "${entry.id}": ${other.dir} and ${dir}`)
      found.set(entry.id, entry)
    }
  }
  return [...found.values()].toSorted((a, b) => (a.id < b.id ? -1 : 1))
}
