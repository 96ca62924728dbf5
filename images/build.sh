#!/bin/bash
# Builds a guest image as a template folder and prints the folder's path.
set -euo pipefail
umask 022

PROGRAM=images/build.sh
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/../scripts/lib.sh"

# Of the fast image. The second half leaves out probes and self-tests that a VM does not need.
CMDLINE='root=/dev/vda rw console=hvc0 quiet loglevel=3 panic=5 net.ifnames=0 audit=0'
CMDLINE+=' tsc=reliable no_timer_check cryptomgr.notests rcupdate.rcu_expedited=1'
CMDLINE+=' 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd'
# Lines that a full package run prints; only the progress bar depends on it.
ROOTFS_LINES=1000
# Megabytes that a build from nothing needs for a moment.
NEEDED_MB=3000
# How apt says that it does not reach its sources.
UNREACHABLE='Could not (resolve|connect|handshake)|Temporary failure|Unable to (connect|fetch)|Failed to fetch'
UNREACHABLE+='|Connection (timed out|refused|failed)|Cannot initiate the connection|is unreachable|does not have a Release file'
KEEP_NEWEST=3
KEEP_DAYS=7

cache=/var/cache/agentlab
kind=fast
name=""
vmid=""
runner=""
refresh=""
prune=""
work=""
recipe=""
child=""

usage() {
	cat <<'TEXT'
usage: images/build.sh --runner FILE [--kind KIND] [--cache DIR] [--name NAME] [--vmid N] [--refresh]
       images/build.sh --prune [--cache DIR]

Builds a Debian 12 guest with agent-runner FILE in it. An image that was built from
the same recipe, packages and runner is reused. Prints the image folder's path.

  --runner FILE  the agent-runner program for the guest (static, amd64)
  --kind KIND    fast:  boots its kernel directly and applies its seed itself (the default)
                 cloud: boots by firmware and GRUB, and Debian's cloud-init applies the seed
  --cache DIR    where images and package trees are kept (/var/cache/agentlab)
  --name NAME    the template's name (debian-12, or debian-12-cloud)
  --vmid N       the template's number (9000, or 9001)
  --refresh      fetch packages anew; makes a new image if any has a new version
  --prune        remove images and package trees that are old and unused
TEXT
}

parse() {
	while [ $# -gt 0 ]; do
		case $1 in
		--runner | --kind | --cache | --name | --vmid)
			[ $# -ge 2 ] || die "$1 needs a value" "images/build.sh --help"
			printf -v "${1#--}" '%s' "$2"
			shift 2
			;;
		--refresh) refresh=yes && shift ;;
		--prune) prune=yes && shift ;;
		-h | --help) usage && exit 0 ;;
		*) die "unknown argument $1" "images/build.sh --help" ;;
		esac
	done
	case $kind in
	fast) name=${name:-debian-12} vmid=${vmid:-9000} ;;
	cloud) name=${name:-debian-12-cloud} vmid=${vmid:-9001} ;;
	*) die "--kind must be fast or cloud" "images/build.sh --help" ;;
	esac
	[[ $name =~ ^[a-z0-9][a-z0-9.-]{0,40}$ ]] || die "--name must be lower-case letters, digits, dots and dashes"
	[[ $vmid =~ ^[1-9][0-9]{2,8}$ ]] || die "--vmid must be a number from 100 to 999999999"
	[ "$prune" ] && return
	[ "$runner" ] || die "--runner is missing" "images/build.sh --help"
	[ -f "$runner" ] || die "no such runner: $runner" "make build"
}

# digest FILE…: one key for names and content, wherever the checkout is.
digest() { (cd "$here" && sha256sum "$@") | sha256sum | cut -c1-64; }

rootfs_key() { digest rootfs.sh packages.list "$kind/packages.list" | cut -c1-12; }

# image_key ROOTFS_ID: everything that can change a byte of the template folder.
image_key() {
	local files
	mapfile -t files < <(cd "$here" && find tree.sh packages.list overlay "$kind" -type f | LC_ALL=C sort)
	{
		echo "$1 $name $vmid $CMDLINE $(digest "${files[@]}")"
		sha256sum <"$runner"
	} | sha256sum | cut -c1-12
}

# use_cached: answers at once when nothing changed, also without root and tools.
use_cached() {
	local rootfs_id folder
	[ -z "$refresh" ] || return 1
	rootfs_id=$(cat "$cache/rootfs/$(rootfs_key)/id" 2>/dev/null) || return 1
	folder=$cache/images/$name-$(image_key "$rootfs_id")
	[ -f "$folder/manifest.json" ] || return 1
	# The time of last use is what --prune goes by.
	touch -c "$folder" 2>/dev/null || true
	note "image $name is up to date"
	echo "$folder"
}

check_host() {
	local free
	[ "$(id -u)" = 0 ] || die "must run as root: it makes files of other owners" "sudo $0 …"
	[ "$(uname -m)" = x86_64 ] || die "images are built on x86_64 only"
	need_tools build mmdebstrap mke2fs qemu-img gcc cpio lz4 sfdisk tar setpriv unshare flock
	mkdir -p "$cache"/{rootfs,images,locks,tmp,logs}
	free=$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')
	[ "$free" -ge "$NEEDED_MB" ] ||
		die "$cache has $free MB free, a build needs $NEEDED_MB" "images/build.sh --prune, or --cache DIR on a larger disk"
}

# take_recipe: from here on, runner and sources are a copy of our own, so that what
# is hashed is what is installed, however long the build takes.
take_recipe() {
	find "$cache/tmp" -mindepth 1 -maxdepth 1 -name 'recipe.*' -mmin +1440 -exec rm -rf {} +
	recipe=$(mktemp -d "$cache/tmp/recipe.XXXXXX")
	mkdir "$recipe/scripts"
	cp "$here/../scripts/lib.sh" "$recipe/scripts/"
	cp -r "$here" "$recipe/images"
	cp "$runner" "$recipe/agent-runner"
	here=$recipe/images runner=$recipe/agent-runner
}

# lock KEY: waits for another build of the same thing; then its leftovers are dead.
lock() {
	exec 9>"$cache/locks/$1"
	if ! flock -n 9; then
		note "another build of $1 is running; waiting for it"
		flock 9
	fi
	rm -rf --one-file-system "$cache/tmp/$1".*
	work=$(mktemp -d "$cache/tmp/$1.XXXXXX")
}

unlock() {
	if [ "$child" ]; then
		kill -KILL "$child" 2>/dev/null || true
		wait "$child" 2>/dev/null || true
	fi
	child=""
	# What was killed may still be ending; a leftover is removed by the next build.
	if [ "$work" ]; then rm -rf --one-file-system "$work" 2>/dev/null || { sleep 0.5 && rm -rf --one-file-system "$work"; }; fi
	work=""
	exec 9>&-
}

# killable PROGRAM…: in the background, so that a signal to us ends it at once, and
# killed with us, so that a build nobody waits for does not hold the lock.
killable() {
	local code=0
	setpriv --pdeathsig KILL "$@" &
	child=$!
	wait "$child" || code=$?
	child=""
	return "$code"
}

# follow LABEL LOG: shows how far the package run is, by what it prints.
follow() {
	local label=$1 log=$2 line count=0 percent=0 started shown=0 now
	started=$(now_ms)
	while IFS= read -r line; do
		printf '%s\n' "$line" >>"$log"
		case $line in Get:* | Unpacking* | Setting* | Selecting* | Preparing*) count=$((count + 1)) ;; esac
		percent=$((count * 100 / ROOTFS_LINES))
		if [ "$percent" -gt 99 ]; then percent=99; fi
		now=$(now_ms)
		if [ -t 2 ] && [ $((now - shown)) -ge 200 ]; then
			show_percent "$label" "$percent" "$started"
			shown=$now
		elif [ ! -t 2 ] && [ $((percent / 25)) -gt "$shown" ]; then
			shown=$((percent / 25))
			note "$label: $((shown * 25))% after $(seconds_since "$started")s"
		fi
	done
	if [ -t 2 ]; then printf '\r\033[K' >&2; fi
}

explain_rootfs_failure() {
	local log=$1
	tail -n 15 "$log" >&2
	if grep -q 'No space left on device' "$log"; then
		die "the disk under $cache is full" "images/build.sh --prune, or --cache DIR on a larger disk"
	fi
	if grep -qE "$UNREACHABLE" "$log"; then
		die "packages cannot be fetched" "check the network, the proxy (http_proxy, Acquire::http::Proxy) and apt's sources with: apt-get update"
	fi
	die "the package tree was not built; all output is in $log"
}

build_rootfs() {
	local key=$1 label="Debian packages" log=$cache/logs/rootfs-$1.log started old output follower failed=""
	started=$(now_ms)
	rm -f "$log"
	(umask 077 && : >"$log")
	[ -t 2 ] || note "$label: about a minute"
	exec {output}> >(follow "$label" "$log")
	follower=$!
	killable "$here/rootfs.sh" "$work" "$here/packages.list" "$here/$kind/packages.list" >&"$output" 2>&1 || failed=yes
	exec {output}>&-
	wait "$follower"
	if [ "$failed" ]; then explain_rootfs_failure "$log"; fi
	printf '%-34s %6ss\n' "$label" "$(seconds_since "$started")" >&2
	sync -f "$work/rootfs.tar"
	old=$cache/rootfs/$key
	if [ -e "$old" ]; then mv -T "$old" "$cache/tmp/$key.old"; fi
	chmod 0600 "$work/rootfs.tar"
	chmod 0755 "$work" # anybody may ask for the id
	mv -T "$work" "$old"
	work=""
	rm -rf "$cache/tmp/$key.old"
}

ensure_rootfs() {
	local key=$1
	lock "$key"
	if [ "$refresh" ] || [ ! -f "$cache/rootfs/$key/id" ]; then build_rootfs "$key"; fi
	touch "$cache/rootfs/$key"
	unlock
}

# boot_facts KERNEL_VERSION: the part of the manifest that says how the VM boots.
boot_facts() {
	case $kind in
	fast)
		cat <<-TEXT
			  "kernel": "kernel",
			  "kernel_version": "$1",
			  "initrd": "initrd.img",
			  "cmdline": "$CMDLINE",
		TEXT
		;;
	cloud)
		cat <<-TEXT
			  "disk_bus": "virtio-scsi",
			  "kernel_version": "$1",
		TEXT
		;;
	esac
}

write_manifest() {
	local key=$1 disk_bytes kernel_version
	read -r disk_bytes kernel_version <"$work/facts"
	cat >"$work/manifest.json" <<TEXT
{
  "format": 1,
  "name": "$name",
  "vmid": $vmid,
  "version": "$key",
  "arch": "x86_64",
  "disk": "root.qcow2",
  "disk_format": "qcow2",
  "disk_virtual_bytes": $disk_bytes,
$(boot_facts "$kernel_version")
  "ssh_user": "agent",
  "agents": [],
  "runner_version": "sha256:$(sha256sum <"$runner" | cut -c1-12)"
}
TEXT
	rm "$work/facts"
}

# ensure_image ROOTFS_KEY: prints the folder. It appears under its name only when whole.
ensure_image() {
	local rootfs=$cache/rootfs/$1 key folder
	key=$(image_key "$(cat "$rootfs/id")")
	folder=$cache/images/$name-$key
	lock "$name-$key"
	if [ ! -f "$folder/manifest.json" ]; then
		killable "$here/$kind/disk.sh" "$rootfs" "$runner" "$work" >&2 || die "image $name was not built" "see the message above"
		write_manifest "$key"
		chmod 0644 "$work"/*
		chmod 0755 "$work"
		stage "write to disk" sync -f "$work/root.qcow2"
		mv -T "$work" "$folder"
		work=""
	fi
	unlock
	echo "$folder"
}

# in_use FOLDER: a process has a file of it open, or a VM keeps a hard link to its disk.
in_use() {
	[ "$(stat -c %h "$1/root.qcow2" 2>/dev/null || echo 1)" -gt 1 ] ||
		[ -n "$(find /proc/[0-9]*/fd -lname "$1/*" -print -quit 2>/dev/null || true)" ]
}

# prune_folder FOLDER: moved aside under its lock first, so nobody sees half of it.
prune_folder() {
	local folder=$1 key=${1##*/}
	exec 8>"$cache/locks/$key"
	if flock -n 8 && ! in_use "$folder"; then
		mv -T "$folder" "$cache/tmp/$key.pruned"
		rm -rf --one-file-system "$cache/tmp/$key.pruned"
		note "removed $folder"
	else
		note "kept $folder: in use"
	fi
	exec 8>&-
}

prune_all() {
	local kind folder
	for kind in images rootfs; do
		[ -d "$cache/$kind" ] || continue
		while IFS= read -r folder; do
			prune_folder "$folder"
		done < <(find "$cache/$kind" -mindepth 1 -maxdepth 1 -type d -printf '%T@ %p\n' | sort -rn |
			tail -n +$((KEEP_NEWEST + 1)) | awk -v limit="$(date -d "$KEEP_DAYS days ago" +%s)" '$1 < limit' | cut -d' ' -f2-)
	done
}

main() {
	local key started
	started=$(now_ms)
	parse "$@"
	if [ "$prune" ]; then
		[ "$(id -u)" = 0 ] || die "must run as root" "sudo $0 --prune"
		prune_all
		return
	fi
	if use_cached; then return; fi
	check_host
	trap 'unlock; rm -rf "$recipe"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	take_recipe
	key=$(rootfs_key)
	ensure_rootfs "$key"
	ensure_image "$key"
	note "image $name ready after $(seconds_since "$started")s"
}

main "$@"
