/**
 * Images without Docker, as OCI tarballs for `ctr images import`: `node tools/image/image.ts [harness | pause]…`, else opencode and pause.
 * They are kept in `LAP_CACHE` (~/.cache/lap).
 */
import { say, step } from '../dev/progress.ts'
import { harnessImage, pauseImage } from './images.ts'

const ids = process.argv.length > 2 ? process.argv.slice(2) : ['opencode', 'pause']
for (const id of ids)
  await step(id, async () => {
    const { name, file } = await (id === 'pause' ? pauseImage(say) : harnessImage(id, say))
    return `${name}  ${file}`
  })
