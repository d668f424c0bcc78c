#!/bin/bash
# Runs all tests. As root it first runs them as the user nobody, which proves that they do without root, and then as root
# with the promise that nothing they need is missing (see internal/testenv). The last line is the summary of the last run.
#
#   scripts/test.sh [GO-TEST-FLAGS]
set -euo pipefail
cd "$(dirname "$0")/.."

# gotestsum ends with one line that counts what ran, failed and was skipped. Without the directory's name in what is built, the copy
# for nobody is not built anew. The time is for machines whose processors and disks others take; an idle one takes five minutes for all.
options=(--format pkgname --format-hide-empty-pkg)
run() {
	echo "== tests $1"
	go tool -modfile=tools/go.mod gotestsum "${options[@]}" -- -count=1 -trimpath -timeout 30m "${@:2}" ./...
}

if [ "$(id -u)" != 0 ]; then
	run "as user $(id -un); those that need root are skipped" "$@"
	exit
fi

# nobody can read neither every clone nor Go's build directories, so the tests run in a copy.
copy=$(mktemp -d "${TMPDIR:-/tmp}/hcs-unprivileged.XXXXXX")
trap 'rm -rf --one-file-system "$copy"' EXIT
chmod 755 "$copy"
mkdir "$copy/src" "$copy/run" "$copy/home" "$copy/bin"
tar --create --exclude=./.git --exclude=./.cache . | tar --extract --directory "$copy/src" --no-same-owner
# What runs containers without root runs these, from this image.
go build -trimpath -o "$copy/bin/" ./cmd/...
chmod -R a+rX "$copy/bin"
if [ -d .cache/images/busybox ]; then
	mkdir -p "$copy/src/.cache/images"
	cp -r .cache/images/busybox "$copy/src/.cache/images/"
fi
chown -R nobody "$copy/src" "$copy/run" "$copy/home"
(
	unset "${!HCS_TEST_@}"
	here=$PWD
	cd "$copy/src"
	export HCS_UNPRIVILEGED=$copy HCS_TEST_PROGRAMS=$copy/bin
	options+=(--hide-summary skipped) # by intention, and run below
	run "as nobody" -exec "$here/scripts/as-nobody.sh" "$@"
)

export HCS_TEST_PRIVILEGED=1
export HCS_TEST_DEBIAN_TAR=$PWD/.cache/debian/layer.tar
export HCS_TEST_BUSYBOX_TAR=$PWD/.cache/busybox/layer.tar
run "as root" "$@"
