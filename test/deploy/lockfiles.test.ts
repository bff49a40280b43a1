import { readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from '@jest/globals'
import { gapsOf, LOCKED_FOLDERS, type Lockfile } from '../../tools/complete-lockfiles.ts'
import { trackedFiles } from './image.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

test('every lockfile is known', () => {
  const folders = trackedFiles(root)
    .filter((file) => path.basename(file) === 'package-lock.json')
    .map((file) => path.dirname(file))
  expect(folders.toSorted()).toEqual(LOCKED_FOLDERS.toSorted())
})

test.each(LOCKED_FOLDERS)('`npm ci` in %s finds every platform in its lockfile', (folder) => {
  const lock = JSON.parse(readFileSync(path.join(root, folder, 'package-lock.json'), 'utf8')) as Lockfile
  expect(Object.keys(gapsOf(lock))).toEqual([])
})

test('a gap is filled with the version that is asked for and the platform of the name', () => {
  const lock: Lockfile = {
    packages: {
      'node_modules/tool': {
        version: '1.2.3',
        dev: true,
        license: 'MIT',
        optionalDependencies: {
          'tool-linux-x64': '1.2.3',
          '@tool/linux-arm64-musl': '1.2.3',
          'tool-windows-x64': '1.2.3',
        },
      },
      'node_modules/tool-linux-x64': { version: '1.2.3' },
    },
  }
  expect(gapsOf(lock)).toEqual({
    'node_modules/@tool/linux-arm64-musl': {
      version: '1.2.3', dev: true, license: 'MIT', optional: true, cpu: ['arm64'], libc: ['musl'], os: ['linux'],
    },
    'node_modules/tool-windows-x64': {
      version: '1.2.3', dev: true, license: 'MIT', optional: true, cpu: ['x64'], os: ['win32'],
    },
  }) // prettier-ignore
})
