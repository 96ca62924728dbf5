#!/bin/bash
# Stage 2 of the guest image: root file system + our files → disk, kernel, initrd.
# usage: disk.sh ROOTFS_FOLDER RUNNER OUT_FOLDER   (OUT_FOLDER must exist and be empty)
# Started by build.sh, which owns locking, caching and progress.
set -euo pipefail

PROGRAM=images/fast/disk.sh
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=images/tree.sh
. "$here/../tree.sh"

configure_units() {
	local name
	mask_units fast/masked.list
	mkdir -p "$tree/etc/systemd/system-generators"
	while read -r name; do
		ln -s /dev/null "$tree/etc/systemd/system-generators/$name"
	done < <(list fast/generators.list)
	enable agentlab-seed.service sysinit.target
	enable agentlab-growfs.service multi-user.target
	ln -sf /lib/systemd/system/systemd-networkd.service "$tree/etc/systemd/system/multi-user.target.wants/"
	mkdir -p "$tree/etc/systemd/system/sockets.target.wants"
	ln -sf /lib/systemd/system/systemd-networkd.socket "$tree/etc/systemd/system/sockets.target.wants/"
	ln -sf /lib/systemd/system/systemd-networkd.service "$tree/etc/systemd/system/dbus-org.freedesktop.network1.service"
	ln -sf /lib/systemd/system/multi-user.target "$tree/etc/systemd/system/default.target"
	# Logins are never refused during boot, so nothing has to allow them later.
	ln -sf /dev/null "$tree/etc/tmpfiles.d/systemd-nologin.conf"
}

install_files() {
	install_overlay fast/overlay
	: >"$tree/etc/resolv.conf"
	chmod 0440 "$tree/etc/sudoers.d/agentlab"
	chroot "$tree" useradd --uid 1000 --user-group --create-home --shell /bin/bash \
		--password '*' agent
	install_runner
}

# module_order FOLDER MODULE: its files in loading order; modules.dep has them reversed.
# A module built into the kernel has no file.
module_order() {
	local line words i
	if grep -q "/$2\.ko\$" "$1/modules.builtin"; then return; fi
	line=$(grep -E "^[^:]*/$2\.ko:" "$1/modules.dep") || die "the kernel has no module $2"
	read -ra words <<<"${line/:/}"
	for ((i = ${#words[@]} - 1; i >= 0; i--)); do echo "${words[i]}"; done
}

# make_initrd: our first program and the modules it loads, in loading order.
make_initrd() {
	local version=$1 work=$2 module path
	mkdir "$work"
	gcc -static -Os -s -Wall -Werror -o "$work/init" "$here/initrd/init.c"
	while read -r module; do
		module_order "$tree/lib/modules/$version" "$module"
	done < <(list fast/initrd/modules.list) | awk '!seen[$0]++' >"$work/paths"
	while read -r path; do
		cp "$tree/lib/modules/$version/$path" "$work/"
		echo "/${path##*/}"
	done <"$work/paths" >"$work/modules.list"
	rm "$work/paths"
	find "$work" -exec touch -h -d @0 {} +
	# Stored uncompressed: unpacking costs an emulated guest more than reading.
	(cd "$work" && find . -mindepth 1 -printf '%P\n' | LC_ALL=C sort |
		cpio --quiet --reproducible -o -H newc -R 0:0) >"$out/initrd.img"
	rm -rf "$work"
}

# number FILE OFFSET TYPE: an unsigned number of a file, as od names its type.
number() { od -An -v -j "$2" -N "${3#u}" -t "$3" "$1" | tr -d ' '; }

# unpack_kernel FROM TO: what a vmlinuz unpacks when it boots, by the offsets of Linux'
# Documentation/arch/x86/boot.rst: setup_sects, payload_offset and payload_length. The
# payload is one LZ4 stream in the old format and the size of what is in it.
unpack_kernel() {
	local from=$1 to=$2 start length
	start=$((($(number "$from" $((0x1f1)) u1) + 1) * 512 + $(number "$from" $((0x248)) u4)))
	length=$(number "$from" $((0x24c)) u4)
	[ "$(number "$from" "$start" u4)" = $((0x184c2102)) ] || return 1
	dd if="$from" iflag=skip_bytes,count_bytes skip="$start" count=$((length - 4)) bs=1M status=none | lz4 -dcq >"$to" ||
		die "unpack $from"
	[ "$(stat -c %s "$to")" = "$(number "$from" $((start + length - 4)) u4)" ] || die "$from is damaged"
}

# take_kernel: QEMU copies a packed kernel into the memory of each VM's process; one
# that is unpacked and starts by PVH it maps, and all share the file's pages.
take_kernel() {
	local packed
	find_kernel
	packed=$tree/boot/vmlinuz-$kernel_version
	if ! grep -qx CONFIG_PVH=y "$tree/boot/config-$kernel_version" || ! unpack_kernel "$packed" "$out/kernel"; then
		note "this kernel cannot be started unpacked: each VM will take $(($(stat -c %s "$packed") >> 20)) MiB more"
		cp "$packed" "$out/kernel"
	fi
	make_initrd "$kernel_version" "$out/initrd.work"
	rm -rf "${tree:?}"/boot/* "${tree:?}"/vmlinuz* "${tree:?}"/initrd.img*
}

make_disk() {
	make_filesystem "$out/root.raw" 0
	finish_disk "$out/root.raw"
}

main() {
	rootfs=$1 runner=$2 out=$3
	tree=$out/tree
	stage "unpack root file system" unpack_rootfs
	stage "kernel and initrd" take_kernel
	remove_identity
	install_files
	configure_units
	stage "make disk" make_disk
}

main "$@"
