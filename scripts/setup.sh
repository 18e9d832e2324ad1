#!/usr/bin/env bash
# Installs what is missing: Debian packages for containers, then a virtual environment with Dure in it.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} venv=${VENV:-.venv}
say() { printf '\033[1m▸ %s\033[0m\n' "$*"; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

if command -v apt-get >/dev/null; then
    wanted=(crun nftables libnftables1 iproute2 mmdebstrap python3 python3-venv curl ca-certificates)
    missing=()
    for package in "${wanted[@]}"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing Debian packages: ${missing[*]}"
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    fi
else
    say "no apt-get here: see 'dure doctor' for what this machine lacks"
fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 …" >&2
    exit 2
}
if [ ! -x "$venv/bin/python" ]; then
    say "making a virtual environment in $venv"
    "$python" -m venv "$venv"
fi
say "installing Dure and its tools into $venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --editable '.[dev]'
"$venv/bin/python" -m compileall -q src/dure  # pip leaves that to the first start, which would then take twice as long
say "ready: $venv/bin/dure"
