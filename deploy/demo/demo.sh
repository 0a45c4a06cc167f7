#!/bin/sh
# Brings the demonstration up from nothing: keys, kits, plan, data, approvals, services, one run.
# Needs `make images` first, docker with compose, and about 4 GB of memory. Everything that it
# makes is in build/demo and in volumes of the project "fondaco":
#   docker compose -f deploy/compose.yaml --profile owner down --volumes
set -eu
cd "$(dirname "$0")/.."
silos="alpha beta gamma"
shared=$(mkdir -p ../build/demo && cd ../build/demo && pwd)
hub_home=/var/lib/fondaco/hub
silo_home=/var/lib/fondaco/silo

compose() { docker compose -f compose.yaml "$@"; }
hub() { compose run --rm -T --no-deps -v "$shared:/shared:ro" coordinator "$@"; }
owner() { # SILO COMMAND...: as root, because init gives the courier its folder
    silo=$1
    shift
    compose run --rm -T --no-deps -v "$shared:/shared:ro" "$silo-owner" "$@"
}
agent() { # SILO COMMAND...: as the owner's own user
    silo=$1
    shift
    compose run --rm -T --no-deps --user 10002:10002 -v "$shared:/shared:ro" "$silo-owner" "$@"
}

echo "== secrets, catalogue"
(
    umask 077
    mkdir -p demo/secrets
)
for name in postgres $silos; do
    file="demo/secrets/${name}_password"
    [ -s "$file" ] || head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$file"
    chmod 444 "$file" # read by users inside of containers; the folder is for this user alone
done
{
    echo "item_id,text"
    awk 'BEGIN { for (i = 0; i < 120; i++) printf "item-%03d,thing number %d\n", i, i }'
} > "$shared/items.csv"
cp demo/plan.toml "$shared/asked.toml"

echo "== images"
compose --profile owner build
compose up -d --wait postgres

echo "== coordinator"
hub fondaco-server init --home $hub_home --name demo --address hub.example:9443
for silo in $silos; do
    hub fondaco-server invite "$silo" --home $hub_home
    hub cat "$hub_home/kits/$silo.kit" > "$shared/$silo.kit"
done

echo "== owners join"
for silo in $silos; do
    owner "$silo" sh -c "fondaco-client init --kit /shared/$silo.kit --home $silo_home \
        --courier /var/lib/fondaco/courier --courier-user fondaco-courier --out /tmp >&2 \
        && cat /tmp/$silo.registration.json" > "$shared/$silo.registration.json"
    hub fondaco-server register "/shared/$silo.registration.json" --home $hub_home
done

echo "== plan"
hub fondaco-server plan new /shared/asked.toml --catalogue /shared/items.csv --home $hub_home \
    --out $hub_home/plan.toml
for silo in $silos; do
    hub fondaco-server invite "$silo" --home $hub_home --plan $hub_home/plan.toml
    hub cat "$hub_home/kits/$silo.kit" > "$shared/$silo.kit"
done

echo "== owners read in their orders and approve"
for silo in $silos; do
    owner "$silo" fondaco-client init --kit "/shared/$silo.kit" --home $silo_home --yes
    agent "$silo" fondaco-client policy --home $silo_home --epsilon-per-year 8 \
        --epsilon-if-masking-broke 40
    sed "s/SHOP/$silo/" demo/source.toml |
        agent "$silo" sh -c "umask 077 && cat > $silo_home/source.toml"
    echo "postgresql://$silo:$(cat "demo/secrets/${silo}_password")@postgres:5432/shops" |
        agent "$silo" sh -c "umask 077 && cat > $silo_home/database.url"
    compose run --rm -T --no-deps "$silo-load"
    agent "$silo" fondaco-client approve $silo_home/kit/plan.toml --home $silo_home --yes
done

echo "== services"
compose up -d --wait

echo "== one run"
compose exec -T coordinator fondaco-server preflight $hub_home/plan.toml --home $hub_home
compose exec -T coordinator fondaco-server run $hub_home/plan.toml --home $hub_home
compose exec -T coordinator fondaco-server status --home $hub_home
for silo in $silos; do
    compose exec -T "$silo-agent" fondaco-client recommend --home $silo_home \
        --customer "$silo-c0001" -n 5
done
