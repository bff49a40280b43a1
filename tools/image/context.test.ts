import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { expect, test } from '@jest/globals'
import { hashOf, openContext } from './context.ts'

test('what .dockerignore names changes no image, everything else does', async () => {
  const root = await mkdtemp(path.join(os.tmpdir(), 'lap-context-'))
  try {
    await mkdir(path.join(root, 'app/node_modules/left-pad'), { recursive: true })
    await writeFile(path.join(root, '.dockerignore'), '# packages come from npm\n**/node_modules\n*.log\n!kept.log\n')
    await writeFile(path.join(root, 'app/server.ts'), 'one')
    const context = await openContext(root)
    const before = await hashOf(context, ['app', './'])
    await writeFile(path.join(root, 'app/node_modules/left-pad/index.js'), 'two')
    await writeFile(path.join(root, 'noise.log'), 'three')
    expect(await hashOf(context, ['app', './'])).toBe(before)
    await writeFile(path.join(root, 'kept.log'), 'four')
    const withLog = await hashOf(context, ['app', './'])
    expect(withLog).not.toBe(before)
    await writeFile(path.join(root, 'app/server.ts'), 'five')
    expect(await hashOf(context, ['app', './'])).not.toBe(withLog)
  } finally {
    await rm(root, { recursive: true })
  }
})
