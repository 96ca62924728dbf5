#!/usr/bin/env bash
# Installs what make build made on this host: programs, plugins, directories,
# keys, a first configuration, and the unit agentlabd.service. Doing it again
# upgrades; what an operator has written is never changed.
set -euo pipefail
umask 022

PROGRAM=scripts/install_host.sh
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
	cat <<'TEXT'
usage: scripts/install_host.sh [--no-start]

Installs bin/ and the systemd unit, makes the group agentlab, directories, keys
and /etc/agentlab/config.hcl where they are not there yet, and starts agentlabd.
Running it again upgrades: agentlabd is restarted when something changed, and
sandboxes go on running meanwhile.

  --no-start   install only; neither enable nor start the service
  -h, --help   show this

With the plugin "netfilter" in its configuration, as in the one written here,
agentlabd makes the bridge vmbr1 and nftables tables of its own, and turns on
IPv4 forwarding, as soon as it starts.
TEXT
}

programs=/usr/local/bin
plugins=/usr/lib/agentlab/plugins
units=/etc/systemd/system
manual=/usr/local/share/man/man1
config=/etc/agentlab
start=yes
changed=""

parse() {
	local arg
	for arg in "$@"; do
		case $arg in
		--no-start) start="" ;;
		-h | --help) usage && exit 0 ;;
		--install-skills-only | --enable-remote-control | --control-token | --control-token=* | --rotate-control-token)
			die "${arg%%=*} is not there yet in this version; nothing was changed"
			;;
		*)
			usage >&2
			die "unknown argument $arg; nothing was changed"
			;;
		esac
	done
}

# put MODE FILE TARGET: replace the target in one step, so that a program that
# runs, or a crash in the middle, does no harm; one that is the same stays.
put() {
	if [ "$(stat -c '%a %u' "$3" 2>/dev/null)" = "${1#0} 0" ] && cmp -s "$2" "$3"; then return; fi
	install -o root -g root -m "$1" "$2" "$3.new"
	mv -f "$3.new" "$3"
	changed=yes
	note "installed $3"
}

# put_new MODE TARGET COMMAND…: what the command prints becomes a target that is
# not there yet, once the command has succeeded.
put_new() {
	local mode=$1 target=$2
	shift 2
	(umask 077 && "$@" >"$target.new")
	chmod "$mode" "$target.new"
	mv -f "$target.new" "$target"
	note "made $target"
}

check() {
	local name
	[ "$(id -u)" = 0 ] || die "installing needs root" "sudo $PROGRAM"
	for name in agentlab agentlabd; do
		[ -x "bin/$name" ] || die "bin/$name is not there" "make build"
	done
	command -v systemctl >/dev/null || die "there is no systemctl: agentlabd is installed as a systemd service only"
}

install_files() {
	local file
	install -d -m 0755 "$plugins" "$config" "$config/profiles"
	install -d -m 0700 "$config/keys" "$config/secrets"
	for file in agentlab agentlabd; do put 0755 "bin/$file" "$programs/$file"; done
	for file in bin/agentlab-plugin-*; do
		case $file in
		*-sim | *'*') ;; # a plugin for tests; none was built
		*) put 0755 "$file" "$plugins/${file##*/}" ;;
		esac
	done
	install -d -m 0755 "$manual"
	put 0644 docs/man/agentlab.1 "$manual/agentlab.1"
	put 0644 packaging/systemd/agentlabd.service "$units/agentlabd.service"
}

make_group() {
	if getent group agentlab >/dev/null; then return; fi
	groupadd --system agentlab
	note "made the group agentlab; who uses agentlab without sudo joins it: usermod -aG agentlab USER"
}

# make_keys: for operators to reach sandboxes, and for bundles of secrets.
make_keys() {
	local ssh=$config/keys/agentlab_id_ed25519 age=$config/keys/age.key
	if command -v ssh-keygen >/dev/null; then
		if [ ! -e "$ssh" ]; then
			ssh-keygen -q -t ed25519 -N '' -C agentlab -f "$ssh"
			note "made $ssh: who logs in to sandboxes uses it"
		fi
		if [ ! -e "$ssh.pub" ]; then put_new 0644 "$ssh.pub" ssh-keygen -y -f "$ssh"; fi
	fi
	if command -v age-keygen >/dev/null; then
		if [ ! -e "$age" ]; then put_new 0600 "$age" age-keygen; fi
		if [ ! -e "$config/secrets/default.age" ]; then put_new 0600 "$config/secrets/default.age" empty_bundle; fi
	fi
}

empty_bundle() { printf 'version: 1\n' | age -r "$(age-keygen -y "$config/keys/age.key")"; }

first_config() {
	local kind
	echo "# What is not set here has its default; docs/getting-started.md has more."
	if [ -e "$config/keys/agentlab_id_ed25519.pub" ]; then
		echo "ssh_public_key_path = \"$config/keys/agentlab_id_ed25519.pub\""
	fi
	if [ -e "$config/secrets/default.age" ]; then echo 'secrets_bundle      = "default"'; fi
	echo
	for kind in hypervisor:qemu network:netfilter; do
		if [ -x "$plugins/agentlab-plugin-${kind#*:}" ]; then echo "plugin \"${kind%:*}\" \"${kind#*:}\" {}"; fi
	done
	if [ -x "$plugins/agentlab-plugin-secrets-age" ] && [ -e "$config/keys/age.key" ]; then
		echo 'plugin "secrets" "secrets-age" {}'
	else
		echo '# For secrets: apt-get install age, run scripts/install_host.sh again for a key, and add'
		echo '#   plugin "secrets" "secrets-age" {}'
	fi
}

make_config() {
	if [ -e "$config/config.hcl" ]; then return; fi
	put_new 0600 "$config/config.hcl" first_config
}

# start_service: enable does not restart what runs, and must not start it twice.
start_service() {
	if [ ! "$start" ]; then
		note "not started; do that with: systemctl enable --now agentlabd"
		return
	fi
	if [ ! -d /run/systemd/system ]; then
		systemctl enable --quiet agentlabd
		note "enabled; systemd does not run here, so agentlabd starts at the next boot"
		return
	fi
	systemctl daemon-reload
	systemctl enable --quiet agentlabd
	if ! systemctl is-active --quiet agentlabd; then
		systemctl reset-failed agentlabd 2>/dev/null || true
		systemctl start agentlabd || failed
	elif [ "$changed" ]; then
		systemctl restart agentlabd || failed
	fi
	note "agentlabd runs; see agentlab status"
}

failed() {
	journalctl -u agentlabd -n 10 --no-pager -o cat >&2 || true
	die "agentlabd was installed and does not start" "journalctl -u agentlabd"
}

main() {
	parse "$@"
	cd "$(dirname "${BASH_SOURCE[0]}")/.."
	check
	make_group
	install_files
	make_keys
	make_config
	start_service
}

main "$@"
