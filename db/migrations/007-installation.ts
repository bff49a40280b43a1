import { Migration } from '@mikro-orm/migrations'

/** Which installation this database belongs to: what it makes elsewhere carries the id. */
export class Migration007Installation extends Migration {
  override up(): void {
    this.addSql(`
      create table installation (
        id uuid primary key, only_one boolean not null unique check (only_one)
      );
      insert into installation values (gen_random_uuid(), true);
    `)
  }
}
