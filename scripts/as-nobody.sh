#!/bin/bash
# Runs a test binary as the user nobody: go test -exec scripts/as-nobody.sh. HCS_UNPRIVILEGED names a directory whose
# subdirectories run and home belong to nobody.
set -euo pipefail

own=$(mktemp -d "$HCS_UNPRIVILEGED/run/XXXXXX")
trap 'rm -rf --one-file-system "$own"' EXIT
mkdir "$own/tmp"
cp "$1" "$own/$(basename "$1")"
chown -R nobody "$own"
export HOME=$HCS_UNPRIVILEGED/home TMPDIR=$own/tmp GOCACHE=$HCS_UNPRIVILEGED/home/cache
unset "${!XDG_@}" HCS_UNPRIVILEGED
setpriv --reuid=nobody --regid=nogroup --clear-groups --bounding-set=-all --inh-caps=-all \
	"$own/$(basename "$1")" "${@:2}"
