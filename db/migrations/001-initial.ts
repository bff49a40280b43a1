import { Migration } from '@mikro-orm/migrations'

/**
 * The first schema. Text instead of enumerated types: a new state is a change of code, not of every table. Timestamps carry
 * milliseconds, as the wire does.
 */
export class Migration001Initial extends Migration {
  override up(): void {
    this.addSql(`
      create table agent (
        id uuid primary key, name text, model text not null, prompt text, tools jsonb not null, harness_id text not null,
        harness_image text not null, repo_url text, branch text not null, setup_cmd text, pfp_url text, mcp_servers jsonb not null,
        env_vars jsonb not null, env_var_hosts jsonb not null, allow_out jsonb not null, deny_out jsonb not null, projects jsonb not null,
        preload_memory_limit int not null, template_hash text not null, last_session_at timestamptz(3), deleted_at timestamptz(3),
        created_at timestamptz(3) not null, created_by text not null, updated_at timestamptz(3) not null
      );
      create index agent_created_index on agent (created_at desc, id) where deleted_at is null;
      create index agent_recent_index on agent (last_session_at) where deleted_at is null;

      create table session (
        id uuid primary key, agent_id uuid not null references agent, status text not null, phase text, phase_detail text, title text,
        end_reason text, failure_code text, failure_reason text, spawn_mode text not null, claim_outcome text not null,
        idempotency_key text unique, body_hash text, request jsonb not null, model text not null, prompt text, sandbox_id uuid,
        attempt int not null, bound_attempt int not null, harness_session_id text, phases jsonb not null, last_seq int not null,
        idle_timeout_ms int not null, created_at timestamptz(3) not null, ready_at timestamptz(3), last_activity_at timestamptz(3) not null,
        max_age_at timestamptz(3) not null, creating_deadline_at timestamptz(3) not null, ended_at timestamptz(3), origin jsonb,
        created_by text not null
      ) with (fillfactor = 70);
      create index session_created_index on session (created_at, id);
      create index session_agent_index on session (agent_id, created_at, id);
      create index session_live_index on session (agent_id) where status in ('creating', 'ready');

      create table sandbox (
        id uuid primary key, agent_id uuid not null references agent, template_hash text not null, purpose text not null,
        state text not null, session_id uuid references session, epoch int not null, name text not null unique, driver text not null,
        harness_id text not null, image text not null, endpoint text, created_at timestamptz(3) not null, ready_at timestamptz(3),
        claimed_at timestamptz(3), ended_at timestamptz(3), retiring boolean not null, failure_code text, failure_message text, evidence jsonb
      ) with (fillfactor = 70);
      create index sandbox_warm_index on sandbox (template_hash, agent_id, ready_at) where state = 'warm';
      create index sandbox_live_index on sandbox (agent_id, state) where state <> 'gone';
      create index sandbox_session_index on sandbox (session_id) where session_id is not null;
      create index sandbox_waited_index on sandbox (coalesce(claimed_at, ended_at, 'infinity')) where purpose = 'pool' and ready_at is not null;
      create index sandbox_provisioned_index on sandbox (agent_id, ready_at desc) where ready_at is not null;

      create table turn (
        id uuid primary key, session_id uuid not null references session, seq int not null, status text not null, idempotency_key text,
        body_hash text, parts jsonb not null, model text, reply jsonb, error jsonb, usage jsonb, sandbox_id uuid,
        created_at timestamptz(3) not null, started_at timestamptz(3), finished_at timestamptz(3),
        unique (session_id, seq), unique (session_id, idempotency_key)
      );
      create index turn_open_index on turn (session_id, seq) where status in ('queued', 'running');

      create table event (
        session_id uuid not null references session, seq int not null, type text not null, data jsonb not null,
        created_at timestamptz(3) not null, sandbox_id uuid, journal_seq int,
        primary key (session_id, seq), unique (sandbox_id, journal_seq)
      );

      create table claim (
        id uuid primary key, session_id uuid not null references session, agent_id uuid not null references agent, attempt int not null,
        outcome text not null, detail text, sandbox_id uuid, template_hash text not null, sandbox_age_ms int,
        created_at timestamptz(3) not null
      );
      create index claim_created_index on claim (created_at);
      create unique index claim_session_attempt_index on claim (session_id, attempt);

      create table pool_state (
        agent_id uuid primary key references agent, share int not null, decision text not null, reason text not null,
        decided_at timestamptz(3) not null, want int not null, failures int not null, backoff_until timestamptz(3),
        breaker_open boolean not null, breaker_reason text, last_failure_at timestamptz(3)
      );

      create table outbox (
        id bigserial primary key, kind text not null, subject uuid not null,
        created_at timestamptz(3) not null, attempts int not null, next_at timestamptz(3) not null, last_error text
      );
      create index outbox_next_index on outbox (next_at, id);

      -- Rows of these come and go all the time while the tables stay small: vacuum by number of dead rows, not by share.
      alter table outbox set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
      alter table sandbox set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
      alter table session set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
    `)
  }
}
