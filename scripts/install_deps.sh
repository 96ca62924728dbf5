#!/bin/bash
# Installs what this machine lacks to build, run or test the project (Debian 12, apt).
# Does nothing, and asks for nothing, when nothing is missing.
set -euo pipefail

PROGRAM=scripts/install_deps.sh
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
	cat <<'TEXT'
usage: scripts/install_deps.sh [GROUP…]

  build     compile the programs and make the guest image
  run       run the daemon: virtual machines, network rules, secrets
  test      what the tests start beyond that
  generate  the compiler of the plugin contracts, which the tests start too
  bench     what the benchmarks compare with
  all       build, run and test (the default)
TEXT
}

# wanted GROUP: "package probe" lines; the probe is a program or an absolute path.
wanted() {
	case $1 in
	build)
		cat <<-'TEXT'
			gcc gcc
			libc6-dev /usr/include/stdio.h
			make make
			git git
			mmdebstrap mmdebstrap
			debian-archive-keyring /usr/share/keyrings/debian-archive-keyring.gpg
			e2fsprogs mke2fs
			cpio cpio
			lz4 lz4
			fdisk sfdisk
			qemu-utils qemu-img
			util-linux setpriv
		TEXT
		;;
	run)
		cat <<-'TEXT'
			qemu-system-x86 qemu-system-x86_64
			qemu-utils qemu-img
			nftables nft
			conntrack conntrack
			iproute2 ip
			age age
			git git
			openssh-client ssh
		TEXT
		;;
	test)
		cat <<-'TEXT'
			python3 python3
			python3-grpcio /usr/lib/python3/dist-packages/grpc/__init__.py
			python3-protobuf /usr/lib/python3/dist-packages/google/protobuf/__init__.py
			python3-cryptography /usr/lib/python3/dist-packages/cryptography/__init__.py
			openssh-client ssh-keygen
			shellcheck shellcheck
			bubblewrap bwrap
			curl curl
			iputils-ping ping
			procps ps
			systemd-container systemd-nspawn
			xorriso xorriso
			zsh zsh
			fish fish
			mandoc mandoc
		TEXT
		wanted generate # what is committed is compared with what they make
		;;
	generate)
		cat <<-'TEXT'
			protobuf-compiler protoc
			libprotobuf-dev /usr/include/google/protobuf/empty.proto
		TEXT
		;;
	bench)
		cat <<-'TEXT'
			libvirt-daemon libvirtd
			libvirt-daemon-driver-qemu /usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so
			libvirt-clients virsh
			xorriso xorriso
		TEXT
		;;
	all) wanted build && wanted run && wanted test ;;
	*) die "unknown group $1" "scripts/install_deps.sh --help" ;;
	esac
}

# missing_packages: those of the "package probe" lines on stdin whose probe is not there.
missing_packages() {
	local package probe
	while read -r package probe; do
		case $probe in
		/*) [ -e "$probe" ] || echo "$package" ;;
		*) command -v "$probe" >/dev/null || echo "$package" ;;
		esac
	done
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif ! command -v sudo >/dev/null; then
		die "installing packages needs root, and there is no sudo" "su -c '$0 $groups'"
	elif sudo -n true 2>/dev/null; then
		sudo -n "$@"
	else
		sudo "$@"
	fi
}

apt_install() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
		--no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "${packages[@]}" >&2
}

# update_lists: only when apt does not know the packages, or knows versions that are gone.
update_lists() { as_root apt-get update -qq >&2; }

install_packages() {
	local started
	started=$(now_ms)
	command -v apt-get >/dev/null ||
		die "missing: ${packages[*]}" "install them by hand; only Debian's apt is known here"
	note "installing: ${packages[*]}"
	if ! apt-cache show "${packages[@]}" >/dev/null 2>&1; then update_lists; fi
	if ! apt_install; then
		note "trying once more with fresh package lists"
		update_lists
		apt_install || die "packages cannot be installed" "check the network and apt's sources: apt-get update"
	fi
	note "installed ${#packages[@]} packages in $(seconds_since "$started")s"
}

main() {
	local group
	# Debian keeps administration programs off the path of ordinary users.
	PATH=$PATH:/usr/sbin:/sbin
	[ $# -gt 0 ] || set -- all
	groups="$*"
	case " $groups " in *" -h "* | *" --help "*) usage && return ;; esac
	for group in "$@"; do wanted "$group" >/dev/null; done
	mapfile -t packages < <(for group in "$@"; do wanted "$group"; done | missing_packages | sort -u)
	if [ "${#packages[@]}" -eq 0 ]; then return; fi
	install_packages
	mapfile -t packages < <(for group in "$@"; do wanted "$group"; done | missing_packages | sort -u)
	[ "${#packages[@]}" -eq 0 ] || die "still missing after the installation: ${packages[*]}"
}

main "$@"
