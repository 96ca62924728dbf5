#!/bin/bash
# Stage 1 of a guest image: a Debian root file system as a tar, from packages only.
# usage: rootfs.sh FOLDER LIST…    (FOLDER must exist; gets rootfs.tar, packages, id)
# Started by build.sh, which owns locking, caching and progress.
set -euo pipefail

RELEASE=bookworm
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
PROGRAM=images/rootfs.sh
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/../scripts/lib.sh"

# host_sources: this machine's own apt sources of the release, one-line form, whatever
# form they are written in. Third parties are left out by the origin apt has verified.
# The words in $( ) are apt's own, not the shell's.
# shellcheck disable=SC2016
host_sources() {
	apt-get indextargets --format '$(ORIGIN)|$(CODENAME)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)' \
		'Created-By: Packages' 2>/dev/null |
		awk -F'|' -v release="$RELEASE" '
			$1 == "Debian" && ($2 == release || index($2, release "-") == 1) && $3 !~ /^cdrom:/ {
				line = "deb " $3 " " $4 " " $5
				if (!seen[line]++) print line
			}'
}

# host_apt_options: what this machine needs to reach its sources at all.
host_apt_options() {
	apt-config dump Acquire |
		grep -E '^Acquire::(Check-(Valid-Until|Date)|Min-ValidTime|Max-ValidTime|ForceIPv[46]|(http|https)(::|:).*) ' || true
}

read_packages() {
	sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "${lists[@]}" | paste -sd,
}

find_sources() {
	sources=$(host_sources)
	if ! grep -q " $RELEASE " <<<"$sources"; then
		apt-get -qq update >&2 || true
		sources=$(host_sources)
	fi
	grep -q " $RELEASE " <<<"$sources" ||
		die "this machine has no usable apt source of Debian 12 ($RELEASE)" \
			"add one under /etc/apt/sources.list.d and run apt-get update"
}

# build_tree: the package manager sees its own mounts and dies with this script,
# so neither a kill nor a crash leaves a mount or a half-alive dpkg behind.
# shellcheck disable=SC2016  # the hook's $1 belongs to mmdebstrap
build_tree() {
	local folder=$1 options=$1/tmp/apt.conf
	# A proxy's password is for nobody else: not in argv, and not in the tar.
	(umask 077 && host_apt_options >"$options")
	TMPDIR=$folder/tmp SOURCE_DATE_EPOCH=1700000000 \
		setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc \
		mmdebstrap --mode=root --variant=minbase --architectures=amd64 --verbose \
		--keyring="$KEYRING" --aptopt="$options" \
		--aptopt='Acquire::Languages "none"' --aptopt='Acquire::Retries "3"' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/info/*' \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-include=/usr/share/doc/*/copyright' \
		--include="$(read_packages)" \
		--customize-hook='chroot "$1" dpkg-query -W -f "\${Package} \${Version}\n" >"'"$folder"'/packages"' \
		--customize-hook='rm -rf "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*' \
		"$RELEASE" "$folder/rootfs.tar" - <<<"$sources"
}

main() {
	local folder=$1
	lists=("${@:2}")
	find_sources
	mkdir "$folder/tmp"
	build_tree "$folder"
	rm -rf "$folder/tmp"
	# The guest installs from where this machine does, without its credentials.
	sed -E 's#(://)[^/@]*@#\1#' <<<"$sources" >"$folder/sources.list"
	LC_ALL=C sort -o "$folder/packages" "$folder/packages"
	sha256sum "$folder/packages" | cut -c1-64 >"$folder/id"
}

main "$@"
