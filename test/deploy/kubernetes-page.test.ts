import { existsSync } from 'node:fs'
import path from 'node:path'
import { expect, test } from '@jest/globals'
import { FAILURE_CODES } from '../../domain/session.ts'
import { errorOf } from '../../kubernetes/errors.ts'
import { inspectorRightsFor, reachProblem, type Right, rightsFor } from '../../kubernetes/preflight.ts'
import { read, root } from './compose.ts'

const page = read('docs/kubernetes.md')

const rowsOf = (section: string): string[][] => {
  const [, text = ''] = page.split(`\n## ${section}\n`)
  return [...(text.split('\n## ')[0] ?? '').matchAll(/^\| (.*) \|$/gm)].map(([, row = '']) => row.split(/ *\| */))
}

test('what each right is for is said of every right, and of no other', () => {
  const all = (['sandbox', 'pod'] as const).flatMap((api) =>
    (['pod-ip', 'nodeport'] as const).map((access) => [api, access] as const),
  )
  const named = (rights: Right[]): Set<string> =>
    new Set(rights.map(({ resource, subresource, verb }) => `${verb} ${resource}${subresource === undefined ? '' : `/${subresource}`}`)) // prettier-ignore
  const rows = rowsOf('What each right is for').flatMap(([what = '', worker = '', api = '']) => {
    const [, resource, verbs] = /^`([a-z/]+)` ([a-z, ]+?)( in all namespaces)?$/.exec(what) ?? []
    return resource === undefined ? [] : [{ resource, verbs: (verbs ?? '').split(', '), worker, api }]
  })
  // A process that has not all verbs of a row names its own.
  const saidOf = (process: 'worker' | 'api'): Set<string> =>
    new Set(
      rows.flatMap(({ resource, verbs, [process]: cell }) => {
        const own = verbs.filter((verb) => new RegExp(`\\b${verb}\\b`).test(cell))
        if (cell.trim() === '') return []
        return (own.length > 0 ? own : verbs).map((verb) => `${verb} ${resource}`)
      }),
    )
  expect(saidOf('worker')).toEqual(named(all.flatMap((one) => rightsFor(...one))))
  expect(saidOf('api')).toEqual(named(all.flatMap((one) => inspectorRightsFor(...one))))
})

test('every failure of a start has its row', () => {
  const codes = rowsOf('When it does not work').flatMap(([code = '']) => /^`([a-z_]+)`$/.exec(code)?.[1] ?? [])
  expect(codes.toSorted()).toEqual([...FAILURE_CODES].toSorted())
})

test('what keeps a cluster from being reached stands there in the words of the platform', () => {
  for (const error of [new Error('connect ECONNREFUSED'), errorOf(401, '{}')])
    // prettier-ignore
    expect(page).toContain(`| ${reachProblem('https://kubernetes', error).what} |`)
})

test('links lead to files that are there', () => {
  const links = [...page.matchAll(/\]\(([^)#]+)(#[^)]*)?\)/g)].map(([, to = '']) => to)
  const missing = links.filter((to) => !to.startsWith('https://') && !existsSync(path.join(root, 'docs', to)))
  expect(missing).toEqual([])
})
