import { Migration } from '@mikro-orm/migrations'

/**
 * Queued messages that change, interrupts that are not forgotten, limits of sessions with what they have used, and what harnesses ask people. New
 * columns have defaults, so that processes of the version before go on making rows while they are replaced.
 */
export class Migration003Turns extends Migration {
  override up(): void {
    this.addSql(`
      alter table agent add column permissions jsonb not null default '{"default": "allow"}', add column max_turns int, add column max_cost_usd double precision;
      alter table session add column permissions jsonb not null default '{"default": "allow"}', add column max_turns int, add column max_cost_usd double precision,
        add column limit_reached text,
        add column usage jsonb not null default '{"turns": 0, "input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "requests": 0, "cost_usd": null}';
      alter table turn add column edited_at timestamptz(3), add column interrupt_requested_at timestamptz(3);

      update session s set usage = u.usage from (
        select session_id, jsonb_build_object('turns', count(*), 'input_tokens', coalesce(sum((usage->>'input_tokens')::bigint), 0),
          'output_tokens', coalesce(sum((usage->>'output_tokens')::bigint), 0), 'cached_tokens', 0, 'requests', coalesce(sum((usage->>'requests')::bigint), 0),
          'cost_usd', null) usage
        from turn where started_at is not null group by session_id) u
      where s.id = u.session_id;

      create table permission (
        id uuid primary key, session_id uuid not null references session, turn_id uuid not null references turn, sandbox_id uuid not null,
        request_id text not null, kind text not null, title text not null, tool jsonb not null, status text not null, asked_at timestamptz(3) not null,
        expires_at timestamptz(3) not null, decision text, decided_by text, decided_at timestamptz(3), delivered_at timestamptz(3),
        unique (sandbox_id, request_id)
      );
      create index permission_session_index on permission (session_id, asked_at);
      create index permission_open_index on permission (session_id) where status = 'open';
      create index permission_turn_index on permission (turn_id);
    `)
  }
}
