import { Migration } from '@mikro-orm/migrations'

/**
 * Checkpoints of sessions: a row each, and what is in them in chunks, unless they are stored elsewhere. New columns have defaults, so that processes of the
 * version before go on making rows while they are replaced.
 */
export class Migration005Checkpoints extends Migration {
  override up(): void {
    this.addSql(`
      create table checkpoint (
        id uuid primary key, session_id uuid not null references session, turn_id uuid not null references turn, turn_seq int not null,
        sandbox_id uuid not null, attempt int not null, harness_id text not null, state text not null, store text not null, pinned boolean not null,
        manifest jsonb, bytes int, sha256 text, created_at timestamptz(3) not null, stored_at timestamptz(3)
      );
      create index checkpoint_session_index on checkpoint (session_id, turn_seq, created_at);
      create index checkpoint_unstored_index on checkpoint (state) where state <> 'stored';

      create table checkpoint_chunk (
        checkpoint_id uuid not null references checkpoint on delete cascade, seq int not null, data bytea not null, primary key (checkpoint_id, seq)
      );
      -- It is compressed already.
      alter table checkpoint_chunk alter column data set storage external;

      alter table session add column checkpoint_seq int not null default 0, add column checkpoint_failures int not null default 0,
        add column checkpoint_retry_at timestamptz(3), add column restart_requested_at timestamptz(3), add column forked_from jsonb;
      create index session_forked_index on session ((forked_from->>'checkpoint_id')) where forked_from is not null;
    `)
  }
}
