/**
 * A sandbox's life. A row exists before the thing it stands for, and outlives it:
 *
 *   provisioning ──► warm ──► claimed ──► ending ──► gone
 *        │            └─────── drift, TTL, drain ─────► ending
 *        ├──► claimed     (a cold start: made for one session, handed over when it has booted)
 *        └──► failed ──► (object removed) gone
 *
 * `epoch` grows at each hand-over; every later write carries it, so a straggler changes nothing.
 */
export const SANDBOX_STATES = ['provisioning', 'warm', 'claimed', 'ending', 'gone', 'failed'] as const
export type SandboxState = (typeof SANDBOX_STATES)[number]

/** `pool`: made ahead of demand, warm before it is handed over. `session`: made for one session, handed over as soon as it has booted. */
export type SandboxPurpose = 'pool' | 'session'
