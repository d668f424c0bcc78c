#!/bin/bash
# Runs the benchmarks of all packages, then the comparisons with other programs that are in scripts/bench.d.
set -euo pipefail
cd "$(dirname "$0")/.."

export HCS_TEST_DEBIAN_TAR=$PWD/.cache/debian/layer.tar
export HCS_TEST_BUSYBOX_TAR=$PWD/.cache/busybox/layer.tar

# Only packages with benchmarks, so that the others' names do not hide the figures. One at a time: they share the machine.
benchmarks=$(grep -rlE '^func Benchmark' --include='*_test.go' --exclude-dir=testdata --exclude-dir=.cache . | xargs -r dirname | sort -u)
for package in $benchmarks; do
	go test -run '^$' -bench . -benchmem -p 1 "$package"
done
for comparison in scripts/bench.d/*; do
	[ ! -x "$comparison" ] || "$comparison"
done
