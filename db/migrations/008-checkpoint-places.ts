import { Migration } from '@mikro-orm/migrations'

/** Where in its store an archive is. Of what was stored before, and by processes of the version before, it is not known. */
export class Migration008CheckpointPlaces extends Migration {
  override up(): void {
    this.addSql(`alter table checkpoint add column place text not null default ''`)
  }
}
