import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { type ProcessRecord, recordOf } from '../../tools/dev/process.ts'

const readOr = (read: () => string): string => {
  try {
    return read()
  } catch {
    return ''
  }
}

/** Running processes that live in a folder: it is their directory, or it is named in their command or environment. */
export const processesIn = (folder: string): (ProcessRecord & { command: string })[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((name) => {
      const at = `/proc/${name}`
      const command = readOr(() => readFileSync(`${at}/cmdline`, 'utf8')).replaceAll('\0', ' ')
      const cwd = readOr(() => readlinkSync(`${at}/cwd`))
      const environment = readOr(() => readFileSync(`${at}/environ`, 'utf8'))
      if (![command, `${cwd}/`, environment].some((text) => text.includes(`${folder}/`))) return []
      const record = recordOf(Number(name))
      return record === null ? [] : [{ ...record, command }]
    })

/** Process ids of the children of a process. */
export const childrenOf = (pid: number): number[] =>
  readOr(() => readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8'))
    .split(' ')
    .flatMap((text) => (text === '' ? [] : [Number(text)]))
