#!/bin/sh
# Brings Temporal's two databases to the schema of this image's version. Safe to run again. Host, user and password come from SQL_HOST, SQL_USER, SQL_PASSWORD.
set -eu

for kind in temporal visibility; do
  case "$kind" in
    temporal) database=temporal ;;
    visibility) database=temporal_visibility ;;
  esac
  temporal-sql-tool --plugin postgres12 --database "$database" create-database
  temporal-sql-tool --plugin postgres12 --database "$database" setup-schema --version 0.0
  temporal-sql-tool --plugin postgres12 --database "$database" update-schema --schema-name "postgresql/v12/$kind"
done
