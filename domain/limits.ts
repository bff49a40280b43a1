/** Every wait and every bound, with its unit and its reason. */

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

/** One bind call to a warm supervisor takes milliseconds; one that takes longer than this counts as dead on arrival. */
export const bindTimeoutMs = 3 * SECOND
/** A supervisor that does not accept a connection in this time is not there: it listens before it is called warm. */
export const connectTimeoutMs = 1 * SECOND
/** Warm sandboxes tried within one request before it goes cold: each dead one costs up to `connectTimeoutMs`. */
export const deadOnArrivalMax = 3
/** From the row of a sandbox to a booted one. Image pulls of several GB fit; nothing healthy takes longer. */
export const sandboxReadyTimeoutMs = 10 * MINUTE
/** A session in `creating` after this ends as `failed:start_timeout`, whatever else happens. */
export const sessionCreatingTimeoutMs = 12 * MINUTE
/** `?wait=ready` answers at the latest after this, with whatever status the session has. */
export const waitReadyMaxMs = 60 * SECOND
/** Events of the journal are collected this long before they are appended as one batch. */
export const eventBatchMs = 25
export const eventBatchMax = 200
/** Heartbeat of the turn activity: a turn whose worker died is taken up elsewhere after this. */
export const turnHeartbeatMs = 10 * SECOND
/** A supervisor that cannot be reached for this long during a turn, with its sandbox still listed, counts as lost. */
export const supervisorLostMs = 15 * SECOND
/** Comment frames on every event stream, so that proxies and clients can tell a quiet stream from a dead one. */
export const streamHeartbeatMs = 10 * SECOND
/** Most sandboxes that a session may lose in a row, without one that it could use between, before it fails as `sandbox_lost`. */
export const sandboxMovesMax = 10
/** About how many sessions may be live at once before creation answers 429: those created at the same moment do not see each other. */
export const liveSessionsMax = 5_000
/** Messages that may wait in one session before sending answers 429. */
export const queuedTurnsMax = 100
/** Body of a request, in bytes. */
export const bodyMaxBytes = 10 * 1024 * 1024
/** Turns of a conversation that are shown at once, the newest. */
export const threadTurnsMax = 1_000
/** Page of a list. */
export const pageSizeMax = 200
export const pageSizeDefault = 50
/** Continue-as-new long before the server's 4,096 events: replay of a long history costs 2 ms a task. */
export const continueAsNewEvents = 1_500
/** Safety net of the pool loop; pokes are what drives it. */
export const poolCheckMs = 30 * SECOND
/** A place in the warm pool moves to another agent only where it saves this many times the misses: moving it costs a start. */
export const poolKeepFactor = 1.5
/** Back-off of a failing template: doubles from the first to the second figure, with jitter. */
export const poolBackoffFirstMs = 5 * SECOND
export const poolBackoffMaxMs = 10 * MINUTE
/** Failures in a row after which an agent's pool is opened as broken, with the stored reason; one probe per back-off stays allowed. */
export const poolBreakerFailures = 5
/** Objects without a row and rows without an object are left alone for this long: they may be in the making. */
export const ledgerGraceMs = 60 * SECOND
/** Outbox: every process relays what its writer did not. */
export const outboxPollMs = 1 * SECOND
/** Lines of a sandbox' log kept as evidence. */
export const evidenceLogLines = 200
/** Characters of an earlier conversation given to a new sandbox when a session moves. */
export const restoredHistoryMaxChars = 60_000
/** A client of a stream that takes nothing for this long is dropped; it resumes by id. */
export const streamDrainTimeoutMs = 30 * SECOND
/** Streams read the log again after this without being woken: the safety net of `LISTEN`. */
export const streamRereadMs = 10 * SECOND
/** Rows of the log read at once for a stream. */
export const streamBatchMax = 500
/** Snapshots that an API process reads at once; each takes a connection to the database for as long as it takes Postgres to look through a turn. */
export const snapshotsAtOnceMax = 2
/** What a client told to come back waits before it does. */
export const streamRetryMs = 1 * SECOND
/** From a ticket for a terminal to its use: a client opens it at once. */
export const terminalTicketTtlMs = 30 * SECOND
/** Terminals that an API process carries at once; each holds two connections and up to twice `terminalBufferBytesMax`. */
export const terminalsMax = 500
/** One frame of who types; longer pastes come in several. */
export const terminalFrameBytesMax = 1024 * 1024
/**
 * What one end of a terminal has not taken, before the other end is no longer read for it. A question for a sign of life waits behind it, so over a slow line it must be
 * gone within `terminalSilenceMaxMs`: 5 KB/s.
 */
export const terminalBufferBytesMax = 128 * 1024
/** How often both ends of a terminal are asked for a sign of life, and how long they may give none. */
export const terminalPingEveryMs = 10 * SECOND
export const terminalSilenceMaxMs = 30 * SECOND
/** A client that is told that its terminal closes answers at once, or is cut off. */
export const terminalCloseMs = 2 * SECOND
/** Typing keeps a session from ending of idleness; it is written down this often at most. */
export const typingNotedEveryMs = 15 * SECOND
/** Requests in flight get this long when the process is told to end. */
export const drainTimeoutMs = 10 * SECOND
/** The gateway's model list changes rarely and is asked for by every form. */
export const modelsCacheMs = 60 * SECOND
/** Interrupting a turn: the supervisor answers at once or not at all. */
export const abortTimeoutMs = 5 * SECOND
/** What a worker does anyway is tried early for this long while a person waits for the answer. */
export const earlyCallMs = 500
/** How often whoever follows a turn looks whether somebody wants it to stop, or has answered it: both reach the sandbox early, as a rule. */
export const turnWishesMs = 2 * SECOND
/** Looking at a sandbox for `diagnose`. */
export const probeTimeoutMs = 2 * SECOND
/** `creating` for longer than this without a reachable supervisor is suspicious: a cold start takes 10–12 s. */
export const slowStartMs = 2 * MINUTE
/** A sandbox older than this should be ready. */
export const notReadyOldMs = 3 * MINUTE
/** A running turn whose harness has said nothing for this long counts as stuck; models think for minutes. */
export const turnQuietMs = 10 * MINUTE
/** A live session's workflow is started within seconds by any process; missing for longer is a fault. */
export const workflowMissingMs = 30 * SECOND
/** Pause between two tries while the database does not answer. */
export const databaseRetryMs = 500
/** A stream that is opened while the database restarts waits this long before it answers 503, on which `EventSource` gives up for good. */
export const databaseWaitMs = 15 * SECOND
/** A call to Temporal takes 20–50 ms on two cores; one that takes this long is given up and comes again by the outbox. */
export const temporalCallMs = 5 * SECOND
/** Asking whether Temporal is there at all. */
export const temporalProbeMs = 1 * SECOND
/** How long `/readyz` waits for what the cluster says; what it said a moment ago is known at once. */
export const clusterProbeMs = 1 * SECOND
/** Calls to Temporal that one relay has open at once: the server stays ahead of what is started. */
export const outboxConcurrency = 8
/** Wait before a message of the outbox is tried again: doubles from the first to the second figure. */
export const outboxRetryFirstMs = 500
export const outboxRetryMaxMs = 15 * SECOND
/** Workflows that a worker keeps in memory, some 365 KB each; one that is not there is replayed from its history. */
export const cachedWorkflowsMax = 500
/** Heartbeat of the activities that start, bind or remove a sandbox: also how soon a start hears that nobody wants it any more. */
export const provisionHeartbeatMs = 1 * SECOND
/** New sandboxes for one start whose first one was lost or whose harness exited: both may be chance. */
export const startRetriesMax = 1
/** A sandbox that could not even be made after this, whatever the reason, failed: nobody waits 12 minutes for a full disk. */
export const createPatienceMs = 4 * SECOND
/** How long it takes to make a sandbox, for an agent that never had one. */
export const poolLeadTimeGuessMs = 12 * SECOND
/** Heartbeats are sent this often, so that one may be late. */
export const turnHeartbeatEveryMs = 2 * SECOND
/** A worker that starts, binds or removes a sandbox and is silent for this long is dead. */
export const provisionHeartbeatTimeoutMs = 8 * SECOND
/** A pool that has decided nothing for this long while its workflow runs is wedged: it looks every `poolCheckMs`. */
export const poolWedgedMs = 5 * MINUTE
/** Things that the janitor puts right at once: ending a sandbox is mostly waiting. */
export const janitorConcurrency = 8
/**
 * Lost sandboxes of which one process takes the evidence at a time: each is half a dozen requests, and all those of a node at once would wait for one another for longer than a
 * request may take.
 */
export const lostConcurrency = 16
/** A look of the janitor, all tries together. */
export const janitorRunTimeoutMs = 15 * MINUTE
/** Heartbeat of the janitor's look, which takes seconds for thousands of sandboxes. */
export const janitorHeartbeatMs = 5 * SECOND
/** How often rows, objects and workflows are compared. */
export const janitorEveryMs = 1 * MINUTE
/** Pause between two tries to reach a supervisor whose sandbox is still there. */
export const reconnectMs = 500
/** Activities get this long to end when a worker is stopped; turns go on with another worker. */
export const workerShutdownMs = 10 * SECOND
/** Tries to bind a sandbox that is there and does not answer: a busy machine is slow before it is dead. */
export const bindTries = 3
/** Connections of clients that answered requests leave idle; longer than the usual 60 s of load balancers, which must be the first to close. */
export const keepAliveTimeoutMs = 65 * SECOND
/** How often a draining API looks for connections that have become idle. */
export const drainPollMs = 50
/** From the signal to the end of the process, whatever hangs; supervisors of processes kill after 20 s or more. */
export const endTimeoutMs = 18 * SECOND
/** Creates in flight are answered before the relay starts workflows for those that are done, for this long at most. */
export const relayYieldMs = 300
/** One try to deliver a webhook, from the name of the receiver to the status of its answer. */
export const webhookTimeoutMs = 15 * SECOND
/** Wait before a delivery is tried again: four times as long each time, up to the second figure. */
export const webhookRetryFirstMs = 5 * SECOND
export const webhookRetryMaxMs = 6 * HOUR
/** A delivery is tried for this long. */
export const webhookGiveUpMs = 24 * HOUR
/** A webhook whose delivery was given up is disabled when nothing else was taken for this long either. */
export const webhookDisableAfterMs = 3 * DAY
/** The secret before the last rotation goes on signing for this long. */
export const webhookSecretOverlapMs = 24 * HOUR
/** Secrets of a webhook that sign at once; each is a signature in the header. */
export const webhookSecretsMax = 5
/** Webhooks of an installation: each event looks at all that are enabled. */
export const webhooksMax = 100
/** What is read of a receiver's answer, in bytes, and kept of it, in characters. */
export const webhookAnswerMaxBytes = 16 * 1024
export const webhookAnswerKeptChars = 500
/** Tries of a delivery that are kept, the newest. */
export const webhookAttemptsKept = 20
/** A step of a delivery that is due is begun within seconds; after this long nobody has it. */
export const webhookOverdueMs = 60 * SECOND
/** Deliveries that the janitor begins, and forgets, in one look. */
export const webhookSweepMax = 1_000
/** Checkpoints of a session that are kept, the newest: one more than is needed, in case an archive is damaged. */
export const checkpointsKeptMax = 2
/** Archives in Postgres are written and read in pieces of this size: one of them is in memory at a time. */
export const checkpointChunkBytes = 1024 * 1024
/** From asking a sandbox for a checkpoint to the first byte of it: a harness is quieted, a workspace is looked through. */
export const checkpointTakeTimeoutMs = 60 * SECOND
/** Taking and storing one, all together; archives are some tens of MiB. */
export const checkpointStoreTimeoutMs = 5 * MINUTE
/** A message that waits lets the checkpoint behind the turn before go first for this long; then the two go on side by side. */
export const checkpointPatienceMs = 3 * SECOND
/** Back-off of a session's checkpoints while they fail: doubles from the first to the second figure. */
export const checkpointBackoffFirstMs = 5 * SECOND
export const checkpointBackoffMaxMs = 10 * MINUTE
/** A sandbox that is busy with a turn of which the log does not know yet is asked again after this. */
export const checkpointBusyMs = 2 * SECOND
/** A checkpoint whose row says for longer than this that it is being stored has nobody who stores it. */
export const checkpointAbandonedMs = 2 * checkpointStoreTimeoutMs
/** Checkpoints that a worker takes at once: each holds its archive on disk. */
export const checkpointsAtOnceMax = 4
/** Sessions that get theirs back from a worker at once: the same, in places of their own, since somebody may wait for each of them. */
export const restoresAtOnceMax = 8
/** A session waits for its place for this long, then another worker is asked: at a minute each, 240 come first. */
export const restoreWaitMaxMs = 30 * MINUTE
/** Fetching a checkpoint and putting it into a sandbox, all tries together; then the session goes on without it. */
export const restoreTimeoutMs = 60 * SECOND
/** A bind behind it: the harness loads a conversation, which takes seconds on a busy machine. */
export const restoredBindTimeoutMs = 15 * SECOND
/**
 * Sandboxes that a session may lose in a row before it goes on without its checkpoint: it may be what they die of. Warm ones that were dead before they got it, such as
 * those of a node that went away, say nothing about it.
 */
export const restoreLossesMax = deadOnArrivalMax + 3
/** Pause between two tries of that. */
export const restoreRetryMs = 1 * SECOND
/** A restart waits this long for a checkpoint behind the last turn. */
export const restartCheckpointMs = 20 * SECOND
/** How often a store of checkpoints that did not answer is looked at again. */
export const checkpointStoreProbeMs = 30 * SECOND
/** Rows up to which the janitor compares a whole store at each look; of more, a sixteenth. */
export const checkpointsComparedMax = 1_000
/** A store of checkpoints that takes no connection for this long is not there. */
export const s3ConnectTimeoutMs = 5 * SECOND
/** One that says nothing for this long amid a request has gone away. */
export const s3SilenceMs = 20 * SECOND
/** Greatest archive of a checkpoint that a supervisor makes or takes. */
export const checkpointMaxBytes = 256 * 1024 * 1024
/** Unpacked: what is larger is no workspace but a bomb, and would fill the disk of a sandbox. */
export const checkpointUnpackedMaxBytes = 1024 * 1024 * 1024
/** A file above this is a build's or a download's, and takes longer to compress than anybody waits. */
export const checkpointFileMaxBytes = 256 * 1024 * 1024
/** Changed files of a workspace: their names and sizes are held in memory to be put in order, some 20 MB. */
export const checkpointFilesMax = 100_000
/** Making one; who asks for it gives up after `checkpointTakeTimeoutMs`. */
export const checkpointCaptureTimeoutMs = 50 * SECOND
/** A turn that comes while a checkpoint is made waits this long for it, then the checkpoint is given up: callers of a turn give up after 10 s. */
export const checkpointTurnWaitMs = 5 * SECOND
/** Fetching the commits that it is based on. */
export const checkpointFetchTimeoutMs = 20 * SECOND
/** Putting one in place, with the commit it is based on fetched from the origin of the clone. Who puts it gives up after `restoreTimeoutMs`. */
export const checkpointRestoreTimeoutMs = 1 * MINUTE
