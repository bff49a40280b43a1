import { defineEntity, p } from '@mikro-orm/core'

/** One row: the installation that this database belongs to. */
export const Installation = defineEntity({
  name: 'Installation',
  tableName: 'installation',
  properties: {
    id: p.uuid().primary(),
    only_one: p.boolean().unique(),
  },
})
