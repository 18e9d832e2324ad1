#!/bin/bash
# Starts PostgreSQL as its public image does.
#   POSTGRES_PASSWORD            needed for a new database, unless POSTGRES_HOST_AUTH_METHOD=trust
#   POSTGRES_USER, POSTGRES_DB   default postgres and the user's name
#   POSTGRES_INITDB_ARGS, PGDATA
#   /docker-entrypoint-initdb.d/*.sh|*.sql|*.sql.gz   run once, when the database is new
# Each POSTGRES_… variable may come from a file named by POSTGRES_…_FILE.
set -euo pipefail

from_file() {
    local name="$1" file="${1}_FILE"
    if [ -n "${!file:-}" ]; then
        if [ -n "${!name:-}" ]; then
            echo "error: both $name and $file are set" >&2
            exit 1
        fi
        export "$name"="$(< "${!file}")"
        unset "$file"
    fi
}

run_init_files() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case "$file" in
            *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
            *.sql) psql_local "$POSTGRES_DB" -f "$file" ;;
            *.sql.gz) gunzip -c "$file" | psql_local "$POSTGRES_DB" ;;
            *) continue ;;
        esac
        echo "ran $file"
    done
}

psql_local() {
    local database="$1"
    shift
    PGHOST= PGHOSTADDR= psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname "$database" "$@"
}

create_database() {
    if [ -z "${POSTGRES_PASSWORD:-}" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
        echo "error: the database is new and POSTGRES_PASSWORD is not set" >&2
        echo "       (POSTGRES_HOST_AUTH_METHOD=trust lets everybody in without one)" >&2
        exit 1
    fi
    local options=(--username="$POSTGRES_USER" --encoding=UTF8 --auth-local=trust --auth-host=scram-sha-256)
    if [ -n "${POSTGRES_PASSWORD:-}" ]; then
        # shellcheck disable=SC2086
        initdb "${options[@]}" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") ${POSTGRES_INITDB_ARGS:-}
    else
        # shellcheck disable=SC2086
        initdb "${options[@]}" ${POSTGRES_INITDB_ARGS:-}
    fi
    printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >> "$PGDATA/pg_hba.conf"
    printf "\nlisten_addresses = '*'\n" >> "$PGDATA/postgresql.conf"

    # during the set-up only the socket listens: nobody is served half a database
    pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -p ${PGPORT:-5432}" -w start
    if [ "$POSTGRES_DB" != postgres ]; then
        psql_local postgres --set db="$POSTGRES_DB" <<< 'CREATE DATABASE :"db";'
    fi
    run_init_files
    pg_ctl -D "$PGDATA" -m fast -w stop
}

[ "${1:0:1}" = "-" ] && set -- postgres "$@"

if [ "$1" = postgres ]; then
    if [ "$(id -u)" = 0 ]; then
        mkdir -p "$PGDATA" /var/run/postgresql
        chmod 700 "$PGDATA"
        find "$PGDATA" \! -user postgres -exec chown postgres: '{}' +
        chown postgres: /var/run/postgresql
        exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
    fi
    for name in POSTGRES_PASSWORD POSTGRES_USER POSTGRES_DB POSTGRES_INITDB_ARGS; do from_file "$name"; done
    export POSTGRES_USER="${POSTGRES_USER:-postgres}"
    export POSTGRES_DB="${POSTGRES_DB:-$POSTGRES_USER}"
    if [ ! -s "$PGDATA/PG_VERSION" ]; then
        create_database
        echo "PostgreSQL is set up"
    fi
    unset POSTGRES_PASSWORD
fi

exec "$@"
