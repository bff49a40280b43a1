import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const script = fileURLToPath(new URL('../tools/bundle-workflows.ts', import.meta.url))

/** Bundles the workflow code from source, in a process of its own: the bundler would keep 300 MB for as long as the worker lives. */
export const bundleWorkflows = async (): Promise<string> => {
  const dir = await mkdtemp(path.join(tmpdir(), 'lap-bundle-'))
  try {
    const file = path.join(dir, 'workflows.bundle.js')
    await promisify(execFile)(process.execPath, [script, file])
    return await readFile(file, 'utf8')
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}
