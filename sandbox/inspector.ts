import type { Evidence } from './driver.ts'

/** Something that is missing where sandboxes live, and exactly what to do about it. */
export type Problem = {
  /** Names no host and no user: anybody may read it. */
  what: string
  /** What was seen, with hosts and words of others; for operators. */
  detail?: string
  remedy: string
}

export type PlaceHealth = {
  /** False: nothing can be said of sandboxes, or none can be made. */
  ok: boolean
  problems: Problem[]
  /** What is seen late, or not shown, because a right is missing. */
  warnings: Problem[]
}

/**
 * What the API may ask of the place where sandboxes live. It only reads; workers change things, through `SandboxDriver`. A call takes 15 s at the most, whatever
 * the place does.
 */
export type SandboxInspector = {
  /**
   * The sections `pod`, `sandbox_cr`, `service`, `node`, `image_cache`, `events` are in `details`; one that could not be read has an `error`, and keeps nothing
   * else from being told. Never throws.
   */
  inspect(name: string): Promise<Evidence>
  /**
   * Lines of the log, oldest first.
   * @throws AppError `not_found` when nothing of that name is there, `unavailable` when that cannot be found out, `upstream` when reading it is refused
   */
  logs(name: string, options: { tailLines: number; sinceSeconds?: number }): Promise<string[]>
  /** Of the last few seconds. Never throws, and takes 3 s at the most. */
  health(): Promise<PlaceHealth>
}
