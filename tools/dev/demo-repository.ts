import { execFile } from 'node:child_process'
import { access, mkdir, rename, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)

const FILES: Record<string, string> = {
  'README.md': `# Demo repository

Each sandbox of an agent without a repository of its own starts with a clone of this one. Give an agent another with \`repo_url\`, or all of them
with PREINSTALLED_GITHUB_REPO.
`,
  'greet.js': `const name = process.argv[2] ?? 'world'
console.log(\`Hello, \${name}!\`)
`,
}

/** Settings of the machine's user (signing, hooks, templates) do not matter here. */
const GIT_ENV = {
  PATH: process.env['PATH'] ?? '',
  HOME: '/nonexistent',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_AUTHOR_NAME: 'LAP',
  GIT_AUTHOR_EMAIL: 'lap@localhost',
  GIT_COMMITTER_NAME: 'LAP',
  GIT_COMMITTER_EMAIL: 'lap@localhost',
}

/** A small git repository to clone, made when it is missing. @returns its `file://` URL */
export const demoRepository = async (dir: string): Promise<string> => {
  const url = pathToFileURL(dir).href
  if (
    await access(path.join(dir, '.git', 'HEAD')).then(
      () => true,
      () => false,
    )
  )
    return url
  const draft = `${dir}.new`
  await rm(draft, { recursive: true, force: true })
  await mkdir(draft, { recursive: true })
  for (const [name, content] of Object.entries(FILES)) await writeFile(path.join(draft, name), content)
  const git = (...args: string[]) => run('git', args, { cwd: draft, env: GIT_ENV })
  try {
    await git('init', '--quiet', '--initial-branch=main')
    await git('add', '.')
    await git('commit', '--quiet', '--message=Say hello')
  } catch (error) {
    throw new Error(`git is needed, for the sandboxes too: ${Error.isError(error) ? error.message : String(error)}`, {
      cause: error,
    })
  }
  await rename(draft, dir)
  return url
}
