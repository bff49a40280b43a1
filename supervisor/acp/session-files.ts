import { createReadStream, createWriteStream } from 'node:fs'
import { cp, glob, mkdir, readFile, readdir, rename, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { pipeline } from 'node:stream/promises'
import type { AcpAgent } from './agent.ts'

/** The files of a session, taken out of one sandbox and put into another one. */
export type SessionFiles = {
  /** Nothing, for an agent that does not say where they are. */
  save(session: string, folder: string): Promise<void>
  /** @returns the session; null when there is none in the folder */
  restore(folder: string): Promise<string | null>
}

type Saved = { session: string; workspace: string }
const SAVED = 'session.json'

/** The folder that a pattern begins with, up to the first name that is not fixed, or is that of a file. */
const rootOf = (pattern: string): string => {
  const parts = pattern.split('/')
  const free = parts.findIndex((part) => part.includes('*'))
  return parts.slice(0, free < 0 ? -1 : free).join('/')
}

type Line = Record<string, unknown>

/** Names another workspace in a file of JSON lines. */
const moveFile = async (file: string, field: string, { from, to }: { from: string; to: string }): Promise<void> => {
  async function* lines(): AsyncGenerator<string> {
    for await (const text of createInterface({ input: createReadStream(file), crlfDelay: Infinity })) {
      const line = JSON.parse(text) as Line
      yield `${JSON.stringify(line[field] === from ? { ...line, [field]: to } : line)}\n`
    }
  }
  await pipeline(lines(), createWriteStream(`${file}.new`, { mode: 0o600 }))
  await rename(`${file}.new`, file)
}

export const createSessionFiles = (agent: AcpAgent, home: string, workspace: string): SessionFiles => {
  const { sessionFiles, workspaceField } = agent
  const readSaved = async (folder: string): Promise<Saved | null> => {
    const text = await readFile(path.join(folder, SAVED), 'utf8').catch(() => null)
    if (text === null) return null
    const saved = JSON.parse(text) as Saved
    // It becomes a part of paths.
    return /^\w[\w.-]*$/.test(saved.session) ? saved : null
  }
  return {
    async save(session, folder) {
      for (const [i, pattern] of (sessionFiles?.(session, workspace) ?? []).entries())
        for await (const found of glob(pattern, { cwd: home })) {
          const to = path.join(folder, String(i), path.relative(rootOf(pattern), found))
          await cp(path.join(home, found), to, { recursive: true })
        }
      if ((await readdir(folder)).length === 0) return
      await writeFile(path.join(folder, SAVED), JSON.stringify({ session, workspace } satisfies Saved))
    },
    async restore(folder) {
      const saved = await readSaved(folder)
      if (saved === null || sessionFiles === undefined) return null
      const moved = { from: saved.workspace, to: workspace }
      if (workspaceField !== undefined && moved.from !== moved.to)
        for await (const file of glob('*/**/*.jsonl', { cwd: folder }))
          await moveFile(path.join(folder, file), workspaceField, moved)
      for (const [i, pattern] of sessionFiles(saved.session, workspace).entries()) {
        const to = path.join(home, rootOf(pattern))
        await mkdir(to, { recursive: true })
        await cp(path.join(folder, String(i)), to, { recursive: true }).catch((error: NodeJS.ErrnoException) => {
          // It had none of these.
          if (error.code !== 'ENOENT') throw error
        })
      }
      return saved.session
    },
  }
}
