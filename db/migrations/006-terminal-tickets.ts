import { Migration } from '@mikro-orm/migrations'

/** Tickets that open a terminal, once and soon: only the hash of each is kept. */
export class Migration006TerminalTickets extends Migration {
  override up(): void {
    this.addSql(`
      create table terminal_ticket (
        hash text primary key, session_id uuid not null references session, caller text not null, created_at timestamptz(3) not null,
        expires_at timestamptz(3) not null
      );
      create index terminal_ticket_expires_index on terminal_ticket (expires_at);
      alter table terminal_ticket set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
    `)
  }
}
