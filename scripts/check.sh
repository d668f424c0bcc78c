#!/bin/bash
# Everything that is judged without running a container, and then what takes long with many. Every step runs, and the failed
# ones are named at the end.
#
#   scripts/check.sh [STEP...]
set -euo pipefail
cd "$(dirname "$0")/.."

tools=.cache/tools
mkdir -p "$tools"

# tool NAME PACKAGE: built once for each pinned version. `go tool` would link these large programs again too often.
tool() {
	local stamp
	stamp=$tools/$1-$(cat tools/go.mod <(go version) | sha256sum | cut -c1-16)
	[ -x "$stamp" ] || CGO_ENABLED=0 go -C tools build -o "$PWD/$stamp" "$2" || return
	"$stamp" "${@:3}"
}

# empty COMMAND...: fails when the command fails or prints anything.
empty() {
	local out status=0
	out=$("$@" 2>&1) || status=$?
	[ -z "$out" ] || printf '%s\n' "$out"
	[ -z "$out" ] && [ $status = 0 ]
}

format() {
	# What is not committed yet counts too, what is ignored does not.
	git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 ls -d 2>/dev/null |
		xargs bash -c 'tool gofumpt mvdan.cc/gofumpt -l "$@"' _
}

check_format() { empty format; }
check_vet() {
	local system
	for system in linux windows darwin; do
		GOOS=$system go vet ./... || return
	done
	go vet ./container/testdata/liar # which ./... passes over
}
check_lint() { tool golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint run ./...; }
# Without omitzero: hcsshim's tags are what compat/hcsshim has them for.
check_fix() { empty go fix -omitzero=false -diff ./...; }
check_modules() { empty go mod tidy -diff && empty go -C compat/replace/hcsshim mod tidy -diff; }
check_race() { CGO_ENABLED=1 go test -race -timeout 10m "${pure[@]}"; }
check_cross() {
	local system
	for system in windows darwin; do
		GOOS=$system go build ./... || return
		GOOS=$system go test -c -o /dev/null ./... | { grep -v 'no test files' || true; } || return
	done
}
check_fuzz() {
	local package target
	for package in $(go list ./...); do
		for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
			go test -run '^$' -fuzz "^$target\$" -fuzztime 5s -fuzzminimizetime 10x "$package" || return
		done
	done
}

# check_endurance runs the tests of scale and endurance at their full size, with what finds data races in clients and shims.
check_endurance() {
	if [ "$(id -u)" != 0 ]; then
		echo "   not root: left out"
		return
	fi
	HCS_TEST_PRIVILEGED=1 HCS_TEST_ENDURANCE=full go test -count=1 -timeout 30m -run '^TestEndurance' -skip '^TestEnduranceClients$' -v ./container &&
		HCS_TEST_PRIVILEGED=1 HCS_TEST_ENDURANCE=full HCS_TEST_RACE=1 CGO_ENABLED=1 \
			go test -race -count=1 -timeout 10m -run '^TestEnduranceClients$' -v ./container
}

# check_wine runs the tests of what needs no kernel as Windows programs, where Wine is.
check_wine() {
	if ! command -v wine >/dev/null; then
		echo "   no wine here: left out"
		return
	fi
	local dir status=0
	dir=$(mktemp -d)
	in_wine "$dir" || status=$?
	WINEPREFIX=$dir/prefix wineserver -k || true
	rm -rf "$dir"
	return $status
}

in_wine() {
	local -x WINEPREFIX=$1/prefix WINEDEBUG=-all
	local package system32=$1/prefix/drive_c/windows/system32
	# Wine 8 cannot remove what is below the directory of a handle, as os.RemoveAll does.
	local skip='^(TestChainFiles|TestParentPaths|TestRoundTripOfOtherPrograms|TestExtractedByOtherPrograms)$'
	wineboot -i >/dev/null 2>&1 || return
	[ -e "$system32/bcryptprimitives.dll" ] || go run ./scripts/processprng "$system32/bcryptprimitives.dll" || return
	for package in ntfs regf layer disk compat/hcsshim; do
		GOOS=windows GOARCH=amd64 go test -c -o "$1/test.exe" "./$package" || return
		(cd "$package" && HCS_TEST_PRIVILEGED='' wine "$1/test.exe" -test.short -test.skip "$skip") || return
	done
}

# The packages that keep to bytes and files, and what all the others share.
mapfile -t pure < <(go list ./... | grep -E '/(layer|ntfs|regf|disk|image|registry|internal/(wire|state|testenv))(/|$)')

export tools
export -f tool

steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(format vet lint fix modules race cross wine fuzz endurance)
failed=()
for step in "${steps[@]}"; do
	echo "== $step"
	start=$SECONDS
	"check_$step" || failed+=("$step")
	echo "   $((SECONDS - start)) s"
done
if [ ${#failed[@]} -gt 0 ]; then
	echo "check: failed: ${failed[*]}" >&2
	exit 1
fi
echo "check: all good: ${steps[*]}"
