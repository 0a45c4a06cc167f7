#!/bin/sh
# Run once by the database's image: one role per shop, whose password is in a file, and the orders.
set -eu
for shop in alpha beta gamma; do
    password=$(cat "${SECRETS:-/run/secrets}/${shop}_password")
    psql --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
        --set shop="$shop" --set password="$password" <<'SQL'
CREATE ROLE :"shop" LOGIN PASSWORD :'password';
SQL
done
psql --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --file "${DEMO:-/demo}/shops.sql"
