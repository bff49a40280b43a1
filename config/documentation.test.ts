import { readFileSync } from 'node:fs'
import path from 'node:path'
import { parse } from 'dotenv'
import { expect, test } from '@jest/globals'
import { loadConfig } from './config.ts'
import { CONTAINER_ENV_PREFIX, settingDefaults } from './env.ts'

const root = path.join(import.meta.dirname, '..')
const envExample = readFileSync(path.join(root, '.env.example'), 'utf8')
const settingsPage = readFileSync(path.join(root, 'docs/settings.md'), 'utf8')

type Documented = { name: string; commentedOut: boolean; value: string; sentence: string }

const documentedInExample = (): Documented[] => {
  const found: Documented[] = []
  let sentence: string[] = []
  for (const line of envExample.split('\n')) {
    const setting = /^(# )?([A-Z][A-Z0-9_]*)=(.*)$/.exec(line)
    if (setting !== null) {
      const [, comment, name = '', value = ''] = setting
      found.push({ name, commentedOut: comment !== undefined, value, sentence: sentence.join(' ') })
      sentence = []
    } else if (line.startsWith('# ')) sentence.push(line.slice(2))
    else sentence = []
  }
  return found
}

const documentedOnPage = (): { name: string; value: string; sentence: string }[] =>
  [...settingsPage.matchAll(/^\| `([A-Z][A-Z0-9_]*\*?)` \| (.+?) \| (.+) \|$/gm)].map(
    ([, name = '', value = '', sentence = '']) => ({ name, value, sentence }),
  )

const freeName = (name: string): boolean => name.startsWith(CONTAINER_ENV_PREFIX)

test('.env.example has every setting, in order, and no other, each with a sentence', () => {
  const found = documentedInExample()
  expect(found.map(({ name }) => name).filter((name) => !freeName(name))).toEqual(
    settingDefaults().map(({ name }) => name),
  )
  expect(found.some(({ name }) => freeName(name))).toBe(true)
  for (const { name, sentence } of found) expect(`${name}: ${sentence}`).toMatch(/: .{10,}\.$/)
})

test('.env.example comments out what is optional and shows the default', () => {
  const found = new Map(documentedInExample().map((setting) => [setting.name, setting]))
  for (const { name, required, default: value } of settingDefaults()) {
    expect([name, found.get(name)?.commentedOut]).toEqual([name, !required])
    if (!required) expect([name, found.get(name)?.value]).toEqual([name, value ?? ''])
  }
})

test('the defaults shown are the ones that hold', () => {
  const required = {
    DATABASE_URL: 'postgresql://lap@localhost/lap',
    MASTER_KEY: '12345678',
    LITELLM_API_BASE: 'http://localhost:4000',
    LITELLM_API_KEY: 'sk-1',
    PREINSTALLED_GITHUB_REPO: parse(envExample)['PREINSTALLED_GITHUB_REPO'],
  }
  const shown = Object.fromEntries(documentedInExample().flatMap((s) => (s.commentedOut ? [[s.name, s.value]] : [])))
  expect(loadConfig({ ...required, ...shown })).toEqual(loadConfig(required))
})

test('docs/settings.md has the settings, defaults and sentences of .env.example', () => {
  const expected = documentedInExample().map(({ name, commentedOut, value, sentence }) => ({
    name: freeName(name) ? `${CONTAINER_ENV_PREFIX}*` : name,
    value: !commentedOut ? 'required' : value === '' ? '–' : `\`${value}\``,
    sentence,
  }))
  expect(documentedOnPage()).toEqual(expected)
})
