import { expect, test } from '@jest/globals'
import { commandOf, pairsOf, parseDockerfile, substitute } from './dockerfile.ts'

test('lines that go on are one instruction, comments between them are none, and stages have their names', () => {
  const { stages } = parseDockerfile(
    [
      '# syntax=docker/dockerfile:1',
      'ARG BASE=node:24',
      'FROM ${BASE} AS packages',
      'RUN apt-get update \\',
      '# of the same instruction',
      ' && apt-get install --yes git',
      'FROM packages',
      'COPY --from=packages --chown=1000:1000 /a /b ./',
    ].join('\n'),
  )
  expect(stages).toEqual([
    {
      name: 'packages',
      from: 'node:24',
      instructions: [{ name: 'RUN', flags: {}, text: 'apt-get update  && apt-get install --yes git', line: 4 }],
    },
    {
      name: null,
      from: 'packages',
      instructions: [{ name: 'COPY', flags: { from: 'packages', chown: '1000:1000' }, text: '/a /b ./', line: 8 }],
    },
  ])
})

test.each([
  ['ADD https://example.com/a /a', 'line 2: ADD is not known here'],
  ['RUN --mount=type=cache,target=/root npm ci', 'line 2: RUN takes no flags here, and has --mount'],
  ['RUN <<END', 'line 2: here-documents are not known here'],
  ['RUN a \\', 'line 2: the last instruction does not end'],
])('what is not understood is refused with its line: %s', (line, message) => {
  expect(() => parseDockerfile(`FROM node:24\n${line}`)).toThrow(message)
})

test('an instruction before the first FROM is refused', () => {
  expect(() => parseDockerfile('RUN true')).toThrow('line 1: RUN comes before the first FROM')
})

test('values are put in where they are named, and pairs may be quoted', () => {
  expect(substitute('a $B ${C} ${D:-d} $NONE', { B: 'b', C: 'c' })).toBe('a b c d ')
  expect(pairsOf('NODE_ENV=production HOME="/home of/$USER"', { USER: 'node' })).toEqual({
    NODE_ENV: 'production',
    HOME: '/home of/node',
  })
})

test('a command is a list, or a line for the shell', () => {
  expect(commandOf('["tini", "--", "node"]')).toEqual(['tini', '--', 'node'])
  expect(commandOf('node server.js')).toEqual(['/bin/sh', '-c', 'node server.js'])
})
