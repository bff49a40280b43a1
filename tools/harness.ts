/** Installs the packages of harnesses ahead of their first use: `node tools/harness.ts [id]…`, without an id all of them. */
import { findHarnesses } from '../harness/registry.ts'
import { createHarnessPackages } from '../local/harness-packages.ts'

const paths = (process.env['HARNESS_PATH'] ?? '').split(':').filter((folder) => folder !== '')
const all = await findHarnesses(paths)
const ids = process.argv.slice(2)
const unknown = ids.filter((id) => !all.some((each) => each.id === id))
if (unknown.length > 0) {
  console.error(`There is no harness ${unknown.join(', ')}. There are: ${all.map(({ id }) => id).join(', ')}`)
  process.exit(1)
}
const packages = createHarnessPackages((text) => console.log(text), process.env)
for (const { id, dir } of all) if (ids.length === 0 || ids.includes(id)) await packages.ensure(dir, () => undefined)
