import { Migration } from '@mikro-orm/migrations'

/**
 * Webhooks and what was, or will be, delivered to them. A delivery refers to no row that another transaction may remove: it is written together with the event that
 * it tells of, which must not fail because its webhook is deleted at that moment.
 */
export class Migration004Webhooks extends Migration {
  override up(): void {
    this.addSql(`
      create table webhook (
        id uuid primary key, url text not null, events jsonb not null, agent_id uuid references agent, description text, enabled boolean not null,
        disabled_reason text, disabled_at timestamptz(3), failing_since timestamptz(3), secrets jsonb not null,
        created_at timestamptz(3) not null, updated_at timestamptz(3) not null
      );
      create index webhook_enabled_index on webhook (agent_id) where enabled;

      create table webhook_delivery (
        id uuid primary key, webhook_id uuid not null, session_id uuid, seq int, type text not null, data jsonb not null, event_at timestamptz(3) not null,
        status text not null, created_at timestamptz(3) not null, tried_from timestamptz(3) not null, tries int not null, next_attempt_at timestamptz(3),
        attempt_count int not null, attempts jsonb not null, error text, finished_at timestamptz(3),
        unique (webhook_id, session_id, seq)
      ) with (fillfactor = 70);
      create index webhook_delivery_list_index on webhook_delivery (webhook_id, created_at, id);
      create index webhook_delivery_due_index on webhook_delivery (next_attempt_at) where status = 'pending';
      create index webhook_delivery_finished_index on webhook_delivery (finished_at) where status <> 'pending';
    `)
  }
}
