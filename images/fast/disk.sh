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

take_kernel() {
	find_kernel
	cp "$tree/boot/vmlinuz-$kernel_version" "$out/vmlinuz"
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
