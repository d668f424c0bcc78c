#!/bin/bash
# The tour: from two OCI images to running containers and back to an empty machine. It needs root, bin/ as `make` builds
# it, and the images of scripts/images.sh. Everything happens in a directory of its own; at the end the script looks for
# mounts, processes, control groups and files that are left, and fails if there are any.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
	echo "the demo runs containers, which takes root today" >&2
	exit 1
fi

PATH=$PWD/bin:$PATH
dir=$(mktemp -d "${TMPDIR:-/tmp}/hcs-demo.XXXXXX")
export HCS_ROOT=$dir/root HCS_RUN=$dir/run

cleanup() {
	hcs ps -aq | xargs -r hcs rm -f
	hcs system prune -f
	rm -rf --one-file-system "$dir"
} >/dev/null 2>&1
trap cleanup EXIT

chapter() { printf '\n# %s\n' "$*"; }

# show COMMAND: as it is typed, then what it prints.
show() {
	printf '$ %s\n' "$1"
	eval "$1" 2>&1
}

chapter "Two images, unpacked while they are read"
cd .cache/images
show 'hcs image load oci:busybox'
show 'hcs image load oci:debian'
cd "$OLDPWD"
show 'hcs image ls'

chapter "Containers that run one command: its output, its exit status"
show 'hcs run --rm debian cat /etc/debian_version'
show 'echo hello | hcs run --rm -i busybox tr a-z A-Z'
show "hcs run --rm busybox sh -c 'exit 3' || echo it ended with \$?"
show "hcs run --rm --read-only --user nobody busybox sh -c 'id -un; touch /x' || true"
show "hcs run --rm --memory 32m busybox tail /dev/zero || echo out of memory: \$?"

chapter "A directory is a base too: here the machine itself, as a sandbox"
show "hcs run --rm --rootfs / sh -c 'echo mine >/etc/sandbox; cat /etc/sandbox'"
show 'ls /etc/sandbox || echo only in there'

chapter "A container in the background"
show "hcs run -d --name web --hostname web --cpus 0.5 --memory 64m busybox sh -c 'echo ready; exec sleep 1000'"
show 'hcs exec web hostname'
show "hcs exec web sh -c 'date -u +%Y >/srv; ls -l /srv'" >"$dir/out"
sed 's/  */ /g' "$dir/out"
show 'hcs ps'
show 'hcs stats --no-stream'
show 'hcs logs web'
ids=$(hcs ps -aq --no-trunc)

chapter "What it has written becomes an image"
show "hcs commit -m 'with a year' web calendar"
show 'hcs run --rm calendar cat /srv'
show 'hcs image ls'

chapter "A hundred commands in it, one after the other"
show 'time (for i in {1..100}; do hcs exec web true; done)' | sed '/^$/d; /^user\|^sys/d'

chapter "And nothing is left"
show 'hcs stop -t 1 web'
show 'hcs rm web'
show 'hcs image rm calendar busybox debian' | sed 's/\(sha256:............\).*/\1…/'
show 'hcs system prune'

left=0
found() {
	left=1
	echo "left behind: $*" >&2
}
while read -r mount; do found "mount $mount"; done < <(grep -F "$dir" /proc/self/mountinfo || true)
for process in /proc/[0-9]*; do
	mapfile -d '' words 2>/dev/null <"$process/cmdline" || continue # it has ended
	if [[ "${words[*]}" == *"$dir"* ]]; then found "process ${process#/proc/}: ${words[*]}"; fi
done
for id in $ids; do
	while read -r group; do found "control group $group"; done < <(find /sys/fs/cgroup -type d -path "*$id*" 2>/dev/null)
done
while read -r file; do found "$file"; done < <(
	find "$HCS_RUN/containers" "$HCS_ROOT"/{containers,names,scratch,layers} -mindepth 1 ! -path '*/.lock' ! -path '*/.empty' -print
	find "$HCS_ROOT/images/blobs" -type f
)
[ "$left" = 0 ] || exit 1
echo "no mount, no process, no control group, no file"
