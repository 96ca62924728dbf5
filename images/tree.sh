# shellcheck shell=bash
# What both images do to the unpacked root file system; sourced, never run.
# The caller sets rootfs, runner, out and tree.
# shellcheck disable=SC2154
images=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$images/../scripts/lib.sh"

DISK_SIZE=4G
# Fixed, so that equal content gives an equal file system.
FS_UUID=0a6e71ab-0000-4000-8000-000000000001

list() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$images/$1"; }

unpack_rootfs() {
	mkdir "$tree"
	tar --numeric-owner --xattrs -xf "$rootfs/rootfs.tar" -C "$tree"
}

# enable UNIT TARGET: what systemctl enable does, without a systemd on this machine.
enable() {
	mkdir -p "$tree/etc/systemd/system/$2.wants"
	ln -sf "/etc/systemd/system/$1" "$tree/etc/systemd/system/$2.wants/$1"
}

# mask_units LIST
mask_units() {
	local name
	while read -r name; do
		find "$tree/etc/systemd/system" -name "$name" -type l -delete
		ln -s /dev/null "$tree/etc/systemd/system/$name"
	done < <(list "$1")
}

# remove_identity: nothing of this machine and nothing that two guests would share.
remove_identity() {
	rm -f "${tree:?}"/etc/ssh/ssh_host_* "$tree/etc/apt/apt.conf.d/99mmdebstrap" \
		"${tree:?}/etc/apt/sources.list.d/"* "$tree/var/lib/dbus/machine-id" \
		"$tree/var/lib/systemd/random-seed" "$tree"/var/log/*.log "$tree"/var/log/apt/*
	# Empty, not missing: systemd then makes one without the slow first-boot work.
	: >"$tree/etc/machine-id"
	echo guest >"$tree/etc/hostname"
	printf '127.0.0.1 localhost\n127.0.1.1 guest\n::1 localhost\n' >"$tree/etc/hosts"
	cp "$rootfs/sources.list" "$tree/etc/apt/sources.list"
}

# install_overlay FOLDER: its files belong to root and are no programs.
install_overlay() { cp -r --no-preserve=mode,ownership "$images/$1/." "$tree/"; }

install_runner() {
	install_overlay overlay
	install -m 0755 "$runner" "$tree/usr/local/bin/agent-runner"
	enable agent-runner.service multi-user.target
	install -d -m 0755 -o 1000 -g 1000 "$tree/workspace"
	install -d -m 0700 "$tree/etc/agentlab" "$tree/var/lib/agentlab"
}

# find_kernel: sets kernel_version.
find_kernel() {
	local kernels=("$tree"/boot/vmlinuz-*)
	[ -e "${kernels[0]}" ] || die "the root file system holds no kernel"
	kernel_version=${kernels[-1]##*/vmlinuz-}
}

# make_filesystem FILE OFFSET: the tree as ext4, from OFFSET bytes to the file's end.
make_filesystem() {
	local blocks
	truncate -s "$DISK_SIZE" "$1"
	blocks=$((($(stat -c %s "$1") - $2) / 4096))
	# Inode tables are complete from the start, or every guest would write them again.
	mke2fs -q -F -t ext4 -b 4096 -L root -U "$FS_UUID" -m 1 -J size=16 \
		-E "offset=$2,lazy_itable_init=0,lazy_journal_init=0,hash_seed=$FS_UUID,root_owner=0:0" \
		-d "$tree" "$1" "$blocks"
}

# finish_disk RAW: as qcow2, and the facts that build.sh writes into the manifest.
finish_disk() {
	qemu-img convert -q -f raw -O qcow2 "$1" "$out/root.qcow2"
	printf '%s %s\n' "$(stat -c %s "$1")" "$kernel_version" >"$out/facts"
	rm -rf "$1" "$tree"
}
