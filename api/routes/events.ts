import { databaseWaitMs } from '../../domain/limits.ts'
import type { ApiDeps } from '../deps.ts'
import { findSession } from '../find.ts'
import { streamLog } from '../log-stream.ts'
import { patiently } from '../patience.ts'
import { presentRaw, presentRawSnapshot, presentSnapshot, presentWrapped } from '../present/stream.ts'
import { route } from '../route.ts'
import type { Route } from '../route.ts'
import { StreamQuery } from '../schemas/message.ts'
import { createSnapshots } from '../snapshot.ts'
import type { Snapshots } from '../snapshot.ts'

const BASE = '/api/v1/managed_agents/sessions/:id'
const tag = 'events'
const replies = [
  {
    status: 200,
    description:
      'Server-sent events: `data:` is one JSON object, `id:` its number in the log. Frames without `id:` are control frames; `resync` says that the cursor sent is no good and that the log follows from its start, or a snapshot. A comment every 10 s.',
    contentType: 'text/event-stream',
  },
  { status: 204, description: 'The session has ended and the client has its whole log.' },
]
const resume =
  'Starts at the beginning of the log, or after `Last-Event-ID` or `?after=`, or with a snapshot (`snapshot=1`, the schema `Snapshot`), without loss or repetition, on any process. Ends with the turn unless `follow=1`, and with the session.'

const events = (deps: ApiDeps, snapshots: Snapshots): Route =>
  route({
    method: 'get',
    path: `${BASE}/events`,
    operationId: 'streamEvents',
    tag,
    summary: 'The event log, live, wrapped',
    description: `${resume} Frames: {"type":"ready"}, {"type":"snapshot","seq","snapshot"}, {"type":"harness_event","seq","turn_id","event"}, {"type":"session_event","seq","event"}, {"type":"done"}.`,
    query: StreamQuery,
    replies,
    errors: ['not_found'],
    async handle(ctx, { params, query, signal }) {
      const session = await patiently({ signal, timeoutMs: databaseWaitMs }, () => findSession(deps, params.id))
      await streamLog(ctx, deps, {
        session,
        after: query.after ?? null,
        follow: query.follow === '1',
        opened: { data: { type: 'ready' } },
        snapshot: query.snapshot === '1' ? async () => presentSnapshot(await snapshots.take(session.id)) : null,
        present: presentWrapped,
        closing: { data: { type: 'done' } },
      })
    },
  })

const raw = (deps: ApiDeps, snapshots: Snapshots): Route =>
  route({
    method: 'get',
    path: `${BASE}/stream`,
    operationId: 'streamRaw',
    tag,
    summary: 'The event log, live, as the harness says it',
    description: `${resume} Frames: {"type":"stream.opened"}, then the harness' events unchanged; the platform's own have the same form and a type that starts with "lap.".`,
    query: StreamQuery,
    replies,
    errors: ['not_found'],
    async handle(ctx, { params, query, signal }) {
      const session = await patiently({ signal, timeoutMs: databaseWaitMs }, () => findSession(deps, params.id))
      await streamLog(ctx, deps, {
        session,
        after: query.after ?? null,
        follow: query.follow === '1',
        opened: { data: { type: 'stream.opened' } },
        snapshot: query.snapshot === '1' ? async () => presentRawSnapshot(await snapshots.take(session.id)) : null,
        present: presentRaw,
        closing: null,
      })
    },
  })

export const eventRoutes = (deps: ApiDeps): Route[] => {
  const snapshots = createSnapshots(deps)
  return [events(deps, snapshots), raw(deps, snapshots)]
}
