import { z } from 'zod'
import { isId } from '../../domain/names.ts'
import { CHECKPOINT_STORES } from '../../domain/checkpoint.ts'
import { Id, strict, Time } from './common.ts'

const Omission = z.object({
  path: z.string().describe('Relative to the workspace.'),
  reason: z.string().describe('`too_large`, `unreadable`, `over_limit` or `leads_out`.'),
  bytes: z.int(),
})

export const Checkpoint = z
  .object({
    id: Id,
    session_id: Id,
    turn_id: Id.describe('The turn that it stands behind.'),
    store: z.enum(CHECKPOINT_STORES),
    bytes: z.int().describe('Of its archive.'),
    sha256: z.string(),
    files: z.int().describe('That differ from the clone.'),
    has_conversation: z.boolean().describe('Whether it holds what the harness itself knows of the conversation.'),
    base_commit: z.string().nullable(),
    omitted: z.array(Omission).describe('What it does not hold, the largest first.'),
    omitted_more: z.int().describe('How many more it does not hold.'),
    created_at: Time,
  })
  .meta({ id: 'Checkpoint' })
export type Checkpoint = z.output<typeof Checkpoint>

export const CheckpointList = z.array(Checkpoint).meta({ id: 'CheckpointList' })

const Named = z.string().refine(isId, 'must be an id, as `checkpoints` lists it')

export const SessionFork = strict({
  title: z
    .string()
    .max(500, 'must have at most 500 characters')
    .nullable()
    .optional()
    .describe('Without it as before.'),
  checkpoint_id: Named.optional().describe('Without it, and without `turn_id`: the newest.'),
  turn_id: Named.optional().describe('The turn behind which the checkpoint was taken.'),
})
  .refine(({ checkpoint_id, turn_id }) => checkpoint_id === undefined || turn_id === undefined, {
    error: 'give checkpoint_id or turn_id, not both',
    path: ['turn_id'],
  })
  .meta({ id: 'SessionFork' })
export type SessionFork = z.output<typeof SessionFork>
