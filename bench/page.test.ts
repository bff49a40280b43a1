import { expect, test } from '@jest/globals'
import { KEPT, readPage, readResults, sectionOf, withSections } from './page.ts'

test.each(KEPT)('the page on benchmarks shows what the run in results/%s.json measured', async (name) => {
  const results = await readResults(name)
  expect(results.quick).toBe(false)
  expect(await readPage()).toContain(sectionOf(results))
})

test('a run takes the place of the one before, between its marks only', () => {
  const page = 'before\n<!-- run: b -->\nold\n<!-- end of run -->\nafter\n<!-- run: a -->\nkept\n<!-- end of run -->\n'
  expect(withSections(page, { b: 'new' })).toBe(page.replace('old', 'new'))
  expect(() => withSections(page, { c: 'new' })).toThrow('<!-- run: c -->')
})
