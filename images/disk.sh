#!/bin/bash
# Stage 2 of the guest image: root file system + our files → disk, kernel, initrd.
# usage: disk.sh ROOTFS_FOLDER RUNNER OUT_FOLDER   (OUT_FOLDER must exist and be empty)
# Started by build.sh, which owns locking, caching and progress.
set -euo pipefail

PROGRAM=images/disk.sh
DISK_SIZE=4G
# Fixed, so that equal content gives an equal file system.
FS_UUID=0a6e71ab-0000-4000-8000-000000000001
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/../scripts/lib.sh"

list() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$here/$1"; }

unpack_rootfs() {
	mkdir "$tree"
	tar --numeric-owner --xattrs -xf "$rootfs/rootfs.tar" -C "$tree"
}

# enable UNIT TARGET: what systemctl enable does, without a systemd on this machine.
enable() {
	mkdir -p "$tree/etc/systemd/system/$2.wants"
	ln -sf "/etc/systemd/system/$1" "$tree/etc/systemd/system/$2.wants/$1"
}

configure_units() {
	local name
	while read -r name; do
		find "$tree/etc/systemd/system" -name "$name" -type l -delete
		ln -s /dev/null "$tree/etc/systemd/system/$name"
	done < <(list masked.list)
	mkdir -p "$tree/etc/systemd/system-generators"
	while read -r name; do
		ln -s /dev/null "$tree/etc/systemd/system-generators/$name"
	done < <(list generators.list)
	enable agentlab-seed.service sysinit.target
	enable agent-runner.service multi-user.target
	enable agentlab-growfs.service multi-user.target
	ln -sf /lib/systemd/system/systemd-networkd.service "$tree/etc/systemd/system/multi-user.target.wants/"
	mkdir -p "$tree/etc/systemd/system/sockets.target.wants"
	ln -sf /lib/systemd/system/systemd-networkd.socket "$tree/etc/systemd/system/sockets.target.wants/"
	ln -sf /lib/systemd/system/systemd-networkd.service "$tree/etc/systemd/system/dbus-org.freedesktop.network1.service"
	ln -sf /lib/systemd/system/multi-user.target "$tree/etc/systemd/system/default.target"
	# Logins are never refused during boot, so nothing has to allow them later.
	ln -sf /dev/null "$tree/etc/tmpfiles.d/systemd-nologin.conf"
}

# remove_identity: nothing of this machine and nothing that two guests would share.
remove_identity() {
	rm -f "${tree:?}"/etc/ssh/ssh_host_* "$tree/etc/apt/apt.conf.d/99mmdebstrap" \
		"${tree:?}/etc/apt/sources.list.d/"* "$tree/var/lib/dbus/machine-id" \
		"$tree/var/lib/systemd/random-seed" "$tree"/var/log/*.log "$tree"/var/log/apt/*
	# Empty, not missing: systemd then makes one without the slow first-boot work.
	: >"$tree/etc/machine-id"
	: >"$tree/etc/resolv.conf"
	echo guest >"$tree/etc/hostname"
	printf '127.0.0.1 localhost\n127.0.1.1 guest\n::1 localhost\n' >"$tree/etc/hosts"
	cp "$rootfs/sources.list" "$tree/etc/apt/sources.list"
}

install_files() {
	cp -r --no-preserve=mode,ownership "$here/overlay/." "$tree/"
	chmod 0440 "$tree/etc/sudoers.d/agentlab"
	install -m 0755 "$runner" "$tree/usr/local/bin/agent-runner"
	chroot "$tree" useradd --uid 1000 --user-group --create-home --shell /bin/bash \
		--password '*' agent
	install -d -m 0755 -o 1000 -g 1000 "$tree/workspace"
	install -d -m 0700 "$tree/etc/agentlab" "$tree/var/lib/agentlab"
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
	done < <(list initrd/modules.list) | awk '!seen[$0]++' >"$work/paths"
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
	local kernels=("$tree"/boot/vmlinuz-*)
	[ -e "${kernels[0]}" ] || die "the root file system holds no kernel"
	kernel_version=${kernels[-1]##*/vmlinuz-}
	cp "${kernels[-1]}" "$out/vmlinuz"
	make_initrd "$kernel_version" "$out/initrd.work"
	rm -rf "${tree:?}"/boot/* "${tree:?}"/vmlinuz* "${tree:?}"/initrd.img*
}

make_disk() {
	local raw=$out/root.raw
	# Inode tables are complete from the start, or every guest would write them again.
	truncate -s "$DISK_SIZE" "$raw"
	mke2fs -q -F -t ext4 -L root -U "$FS_UUID" -m 1 -J size=16 \
		-E "lazy_itable_init=0,lazy_journal_init=0,hash_seed=$FS_UUID,root_owner=0:0" -d "$tree" "$raw"
	qemu-img convert -q -f raw -O qcow2 "$raw" "$out/root.qcow2"
	disk_bytes=$(stat -c %s "$raw")
	rm -rf "$raw" "$tree"
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
	printf '%s %s\n' "$disk_bytes" "$kernel_version" >"$out/facts"
}

main "$@"
