#!/bin/bash
# Installs the Debian packages that the tests and the demo need and the machine lacks.
#
#   scripts/setup.sh test|demo|check|bench
#
# As root it installs them. Else it says in one line what to install, and fails only for the demo: tests skip what they
# cannot do.
set -euo pipefail

purpose=${1:-test}

# A command that shows that a package is there, and the package.
needs='
runc            runc
crun            crun
busybox         busybox-static
debootstrap     debootstrap
bsdtar          libarchive-tools
getfattr        attr
setcap          libcap2-bin
newuidmap       uidmap
xz              xz-utils
zstd            zstd
losetup         mount
mkfs.ext4       e2fsprogs
mkfs.xfs        xfsprogs
setpriv         util-linux
wget            wget
skopeo          skopeo
umoci           umoci
qemu-img        qemu-utils
vhdiinfo        libvhdi-utils
sgdisk          gdisk
sfdisk          fdisk
mkntfs          ntfs-3g
wimlib-imagex   wimtools
docker-registry docker-registry
hivexml         libhivex-bin
regfexport      libregf-utils
'
if [ "$purpose" = check ]; then # the race detector needs a C compiler
	needs="$needs
gcc             gcc
cc1             libc6-dev
"
fi

if [ "$purpose" = bench ]; then # 135 MB installed, for comparison alone
	needs="$needs
containerd      containerd
podman          podman
conmon          conmon
"
fi

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

there() {
	case $1 in
	busybox) busybox 2>&1 | grep -q . && ! ldd "$(command -v busybox)" >/dev/null 2>&1 ;; # the static one
	cc1) [ -e /usr/include/stdlib.h ] ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

missing=()
while read -r command package; do
	[ -n "$command" ] || continue
	there "$command" || missing+=("$package")
done <<<"$needs"

# debootstrap checks signatures with these, and only recommends them.
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)

[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "missing packages, install them as root: apt-get install ${missing[*]}" >&2
	[ "$purpose" != demo ]
	exit
fi

echo "installing Debian packages: ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
	apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >>"$log" 2>&1
}
# The lists may be missing or older than the mirror, so a failed attempt is followed by one with new lists.
if ! apt install --no-install-recommends "${missing[@]}"; then
	if ! apt update || ! apt install --no-install-recommends "${missing[@]}"; then
		cat "$log" >&2
		echo "install Debian packages ${missing[*]}: apt-get failed, see above" >&2
		exit 1
	fi
fi
