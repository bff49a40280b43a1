import { Migration } from '@mikro-orm/migrations'

/** What the models of a sandbox have used outside of turns, as far as it was added to its session. */
export class Migration009UsageOutsideTurns extends Migration {
  override up(): void {
    this.addSql('alter table sandbox add usage_outside_turns jsonb')
  }
}
