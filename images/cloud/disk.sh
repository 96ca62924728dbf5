#!/bin/bash
# Stage 2 of the cloud image: root file system + agent-runner → a disk that a BIOS boots.
# usage: disk.sh ROOTFS_FOLDER RUNNER OUT_FOLDER   (OUT_FOLDER must exist and be empty)
# Started by build.sh, which owns locking, caching and progress.
set -euo pipefail

PROGRAM=images/cloud/disk.sh
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=images/tree.sh
. "$here/../tree.sh"

# Where the only partition begins; GRUB's core lies in front of it.
PARTITION_SECTOR=2048
SECTOR=512
# Fixed as the file system's is: the mark of an MBR disk.
DISK_ID=0a6e71ab
GRUB_LIB=/usr/lib/grub/i386-pc

install_files() {
	install_overlay cloud/overlay
	echo "UUID=$FS_UUID / ext4 rw,discard,errors=remount-ro 0 1" >"$tree/etc/fstab"
	ln -sf ../run/systemd/resolve/stub-resolv.conf "$tree/etc/resolv.conf"
	install_runner
	mask_units cloud/masked.list
}

# install_grub: what grub-install and update-grub do, without a device to look at.
install_grub() {
	local grub=$tree/boot/grub
	mkdir -p "$grub/i386-pc"
	cp "$tree$GRUB_LIB"/*.mod "$tree$GRUB_LIB"/*.lst "$grub/i386-pc/"
	chroot "$tree" grub-mkimage -d "$GRUB_LIB" -O i386-pc -p '(,msdos1)/boot/grub' \
		-o /boot/grub/i386-pc/core.img biosdisk part_msdos ext2
	cat >"$grub/grub.cfg" <<TEXT
# The first one; update-grub writes it anew.
set timeout=0
serial --speed=115200
terminal_output console serial
search --no-floppy --fs-uuid --set=root $FS_UUID
menuentry 'Debian GNU/Linux' {
	echo 'Loading Linux $kernel_version ...'
	linux /boot/vmlinuz-$kernel_version root=UUID=$FS_UUID ro console=tty0 console=ttyS0,115200
	initrd /boot/initrd.img-$kernel_version
}
TEXT
	cp "$tree$GRUB_LIB/boot.img" "$grub/i386-pc/core.img" "$out/"
}

# make_bootable FILE: boot code, partition table, and GRUB's core in the gap after
# them, where the boot code of GRUB looks for it.
make_bootable() {
	local core=$out/core.img
	[ "$(stat -c %s "$core")" -le $(((PARTITION_SECTOR - 1) * SECTOR)) ] ||
		die "GRUB's core does not fit in front of the partition"
	truncate -s "$DISK_SIZE" "$1"
	dd if="$out/boot.img" of="$1" bs=440 count=1 conv=notrunc status=none
	dd if="$core" of="$1" bs="$SECTOR" seek=1 conv=notrunc status=none
	sfdisk --quiet --no-reread --no-tell-kernel "$1" <<TEXT
label: dos
label-id: 0x$DISK_ID
start=$PARTITION_SECTOR, type=83, bootable
TEXT
	rm "$out/boot.img" "$core"
}

make_disk() {
	local raw=$out/root.raw
	make_bootable "$raw"
	make_filesystem "$raw" $((PARTITION_SECTOR * SECTOR))
	finish_disk "$raw"
}

main() {
	rootfs=$1 runner=$2 out=$3
	tree=$out/tree
	stage "unpack root file system" unpack_rootfs
	find_kernel
	remove_identity
	install_files
	stage "GRUB" install_grub
	stage "make disk" make_disk
}

main "$@"
