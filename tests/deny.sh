#!/bin/sh
# Licences, bans and sources of all dependencies, and known advisories where their database can be reached.
set -eu
tools=${XDG_CACHE_HOME:-$HOME/.cache}/tidewater/tools
PATH="$tools/bin:$PATH"
if ! command -v cargo-deny >/dev/null 2>&1; then
    if [ -z "${CI:-}" ]; then
        echo "SKIPPED: licences, bans, sources and advisories of the dependencies were not checked." >&2
        echo "         cargo install --locked cargo-deny    (some minutes), then try again." >&2
        exit 0
    fi
    cargo install --locked --quiet --root "$tools" cargo-deny
fi
cargo deny --workspace check licenses bans sources
# The advisories live in a git repository of their own, which not every network reaches: told apart from a finding.
if cargo deny --workspace fetch db >/dev/null 2>&1; then
    cargo deny --workspace check advisories
else
    echo "SKIPPED: advisories were not checked, their database cannot be fetched from here." >&2
fi
