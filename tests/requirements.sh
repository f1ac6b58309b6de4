#!/bin/sh
# Sees to the programs the demo and the tests need: installs them through apt where that is allowed, else names them.
set -eu

missing=""
need() { # need PACKAGE, found when the command after it succeeds
    package=$1; shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
have_postgres() {
    for dir in /usr/lib/postgresql/*/bin $(echo "$PATH" | tr ':' ' '); do
        [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] && [ -x "$dir/pg_recvlogical" ] && return 0
    done
    return 1
}
# Types the sample uses come from extensions that other systems package apart.
have_contrib() {
    for dir in /usr/share/postgresql/*/extension "$(pg_config --sharedir 2>/dev/null)/extension"; do
        [ -f "$dir/hstore.control" ] && [ -f "$dir/citext.control" ] && [ -f "$dir/ltree.control" ] && return 0
    done
    return 1
}
need postgresql have_postgres
need postgresql-contrib have_contrib
need postgresql-client command -v psql
need util-linux command -v setpriv
need build-essential command -v cc
[ -z "$missing" ] && exit 0

install="apt-get install -y --no-install-recommends$missing"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "Missing:$missing (Debian's names). Install them and try again." >&2
    exit 3
fi
if [ "$(id -u)" = 0 ]; then as_root=""
elif sudo -n true 2>/dev/null; then as_root="sudo"
else
    echo "Missing:$missing. Install them with: sudo $install" >&2
    exit 3
fi
echo "Installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -q >&2
# The servers here are throwaway ones: Debian's own cluster is not wanted, so it is neither made nor started.
no_cluster=/etc/postgresql-common/createcluster.d/tidewater.conf
$as_root mkdir -p "${no_cluster%/*}"
echo "create_main_cluster = false" | $as_root tee "$no_cluster" >/dev/null
trap '$as_root rm -f "$no_cluster"' EXIT
$as_root $install >&2
