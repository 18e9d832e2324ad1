#!/usr/bin/env bash
# The main job end to end: start the platform, deploy the example shop, order something.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BIN:-.venv/bin}
say() { printf '\n\033[1m▸ %s\033[0m\n' "$*"; }

if "$bin/dure" status >/dev/null 2>&1; then
    say "the platform runs already"
else
    say "dure up -d --stand-ins"
    "$bin/dure" up -d --stand-ins
fi
say "dure deploy examples/shop"
"$bin/dure" deploy examples/shop
say "ordering: curl -d '{\"product\": \"tea\", \"quantity\": 2}' http://127.0.0.1:8088/api/orders"
curl --silent --show-error --fail-with-body --retry 5 --retry-all-errors --max-time 20 \
    -H 'Content-Type: application/json' -d '{"product": "tea", "quantity": 2}' http://127.0.0.1:8088/api/orders
printf '\n'
say "the shop answers at http://127.0.0.1:8088 — look around: $bin/dure kubectl -n shop get all; end it: $bin/dure down"
