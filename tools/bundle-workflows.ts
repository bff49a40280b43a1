/** Writes the workflow code as one file, for the image: `node tools/bundle-workflows.ts <file>`. */
import { writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { bundleWorkflowCode } from '@temporalio/worker'

const [file] = process.argv.slice(2)
if (file === undefined) {
  console.error('Which file? node tools/bundle-workflows.ts workflows.bundle.js')
  process.exit(1)
}
const workflowsPath = fileURLToPath(new URL('../workflows/index.ts', import.meta.url))
const { code } = await bundleWorkflowCode({ workflowsPath })
await writeFile(file, code)
console.log(`${file}: ${Math.round(code.length / 1024)} kB`)
