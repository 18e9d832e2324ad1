#!/bin/sh
# Prepares nginx as its public image does, then becomes the command.
#   /etc/nginx/templates/*.template   are filled with the environment into /etc/nginx/conf.d
#   /docker-entrypoint.d/*.envsh|*.sh are sourced or run
#   NGINX_ENTRYPOINT_LOCAL_RESOLVERS  set: NGINX_LOCAL_RESOLVERS becomes the name servers of the pod
set -e

fill_templates() {
    templates="${NGINX_ENVSUBST_TEMPLATE_DIR:-/etc/nginx/templates}"
    suffix="${NGINX_ENVSUBST_TEMPLATE_SUFFIX:-.template}"
    output="${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}"
    [ -d "$templates" ] || return 0
    # only variables that exist are replaced: nginx has its own $names
    names=$(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/${\1}/p' | tr '\n' ' ')
    find "$templates" -type f -name "*$suffix" | while read -r template; do
        target="$output/${template#"$templates"/}"
        target="${target%"$suffix"}"
        mkdir -p "$(dirname "$target")"
        envsubst "$names" < "$template" > "$target"
    done
}

find_resolvers() {
    [ -n "${NGINX_ENTRYPOINT_LOCAL_RESOLVERS:-}" ] || return 0
    NGINX_LOCAL_RESOLVERS=$(sed -n 's/^nameserver[[:space:]]\{1,\}\([^[:space:]]*\).*/\1/p' /etc/resolv.conf | tr '\n' ' ')
    export NGINX_LOCAL_RESOLVERS
}

if [ "$1" = nginx ] || [ "$1" = nginx-debug ]; then
    find_resolvers
    fill_templates
    for file in /docker-entrypoint.d/*; do
        case "$file" in
            *.envsh) [ -x "$file" ] && . "$file" ;;
            *.sh) [ -x "$file" ] && "$file" ;;
        esac
    done
fi

exec "$@"
