import { Migration } from '@mikro-orm/migrations'

/** What an agent's sandboxes get of a node, where it is not what the settings say. */
export class Migration002AgentResources extends Migration {
  override up(): void {
    this.addSql('alter table agent add column resources jsonb')
  }
}
