#!/bin/bash
# Makes the images that the tests and the demo run on, once, below .cache/:
#
#   busybox/layer.tar                    a static busybox with its links and a few files
#   debian/layer.tar, .tar.gz, .tar.zst  a minimal Debian, with devices, hard links, setuid and a file capability
#   images/busybox, images/debian        the same as OCI layouts; tag latest is gzip, tag zstd is zstd, tag plain is tar
#
# Debian needs root. Everything is made beside its place and renamed, so that an interrupted run leaves nothing half done.
set -euo pipefail
cd "$(dirname "$0")/.."

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/go/bin
cache=$PWD/.cache
mkdir -p "$cache/images"

# One run at a time; the next one finds everything made.
exec 9>"$cache/lock"
flock 9

# What an interrupted run left. Its mounts went with its mount namespace.
rm -rf --one-file-system "$cache"/work.*
work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT

# pack TREE TAR: what is the same every time is written the same every time.
pack() {
	tar --create --file "$2" --directory "$1" --format=pax --pax-option=delete=atime,delete=ctime \
		--numeric-owner --xattrs --xattrs-include='*' --sort=name --one-file-system "${@:3}" .
}

# compress DIR: beside DIR/layer.tar
compress() {
	gzip --no-name --keep --stdout "$1/layer.tar" >"$1/layer.tar.gz"
	zstd --quiet --keep "$1/layer.tar" -o "$1/layer.tar.zst"
}

# layout NAME CMD
layout() {
	[ ! -d "$cache/images/$1" ] || return 0
	go run ./scripts/mkimage -cmd "$2" "$work/$1.layout" "$cache/$1/layer.tar" \
		latest="$cache/$1/layer.tar.gz" zstd="$cache/$1/layer.tar.zst" plain="$cache/$1/layer.tar"
	mv "$work/$1.layout" "$cache/images/$1"
}

# publish NAME: the layout belongs to the layer, so an older one goes.
publish() {
	chmod 755 "$work/$1"
	rm -rf "$cache/images/$1"
	mv "$work/$1" "$cache/$1"
}

busybox_tree() {
	local root=$1 applet
	mkdir -p "$root"/{bin,dev,etc,home,proc,root,run,sbin,sys,tmp,usr/bin,usr/sbin,var/tmp}
	chmod 1777 "$root/tmp" "$root/var/tmp"
	chmod 700 "$root/root"
	install -m 755 "$(command -v busybox)" "$root/bin/busybox"
	for applet in $(busybox --list-full); do
		[ "$applet" != bin/busybox ] || continue
		mkdir -p "$root/$(dirname "$applet")"
		ln -sf /bin/busybox "$root/$applet"
	done
	cat >"$root/etc/passwd" <<-PASSWD
		root:x:0:0:root:/root:/bin/sh
		daemon:x:1:1:daemon:/:/bin/false
		user:x:1000:1000:a user:/home/user:/bin/sh
		nobody:x:65534:65534:nobody:/:/bin/false
	PASSWD
	cat >"$root/etc/group" <<-GROUP
		root:x:0:
		daemon:x:1:
		wheel:x:10:root,user
		user:x:1000:
		nogroup:x:65534:
	GROUP
	mkdir -p "$root/home/user"
}

make_busybox() {
	[ ! -e "$cache/busybox/layer.tar" ] || return 0
	if ! command -v busybox >/dev/null || ! command -v zstd >/dev/null; then
		echo "no busybox image: it needs the commands busybox and zstd" >&2
		return 0
	fi
	echo "making the busybox image" >&2
	(umask 022 && busybox_tree "$work/busybox.tree")
	mkdir "$work/busybox"
	pack "$work/busybox.tree" "$work/busybox/layer.tar" --owner=0 --group=0 --mtime=@0
	compress "$work/busybox"
	publish busybox
}

# mirror SUITE: where this machine's apt takes the release from, whatever the format of its sources.
mirror() {
	local uri codename component
	apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		while read -r uri codename release component; do
			if [ "$component" = main ] && { [ "$codename" = "$1" ] || [ "$release" = "$1" ]; }; then
				echo "$uri"
			fi
		done | sort -u | head -n 1
}

make_debian() {
	[ ! -e "$cache/debian/layer.tar" ] || return 0
	if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
		echo "no Debian image: it needs root and debootstrap" >&2
		return 0
	fi
	local suite=bookworm from proxy
	from=$(mirror $suite)
	if [ -z "$from" ]; then
		suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
		from=$(mirror "$suite")
	fi
	if [ -z "$from" ]; then
		echo "make the Debian image: apt's sources name no mirror of bookworm or of this machine's release" >&2
		return 1
	fi
	eval "$(apt-config shell proxy Acquire::http::Proxy)"
	[ -z "${proxy:-}" ] || export http_proxy=${http_proxy:-$proxy}
	echo "making the Debian image ($suite), which takes a minute or two" >&2
	# ping brings a file capability. In a mount namespace of its own, for debootstrap mounts /proc in the tree.
	if ! unshare --mount debootstrap --variant=minbase --include=iputils-ping,libcap2-bin \
		"$suite" "$work/debian.tree" "$from" >"$work/debootstrap.out" 2>&1; then
		tail -n 20 "$work/debootstrap.out" "$work/debian.tree/debootstrap/debootstrap.log" >&2 || true
		echo "make the Debian image: debootstrap failed, see above" >&2
		return 1
	fi
	rm -rf "$work"/debian.tree/var/cache/apt/archives/*.deb "$work"/debian.tree/var/lib/apt/lists/*
	mkdir "$work/debian"
	pack "$work/debian.tree" "$work/debian/layer.tar"
	compress "$work/debian"
	publish debian
}

make_busybox
[ ! -e "$cache/busybox/layer.tar" ] || layout busybox /bin/sh
make_debian
[ ! -e "$cache/debian/layer.tar" ] || layout debian /bin/bash
