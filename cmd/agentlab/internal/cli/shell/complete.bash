# Completion of PROGRAM for bash. Put it where bash looks for completions:
#   PROGRAM completion bash > /etc/bash_completion.d/PROGRAM
# or into one shell: source <(PROGRAM completion bash)
_PROGRAM() {
	local candidate cur=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]}
	type -t -- "$program" >/dev/null || program=PROGRAM # as of ~/bin/PROGRAM
	[[ $cur == = ]] && cur=
	COMPREPLY=()
	while IFS= read -r candidate; do
		case $candidate in
		:file)
			compopt -o filenames 2>/dev/null
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
			;;
		:directory)
			compopt -o filenames 2>/dev/null
			mapfile -t COMPREPLY < <(compgen -d -- "$cur")
			;;
		*) COMPREPLY+=("$candidate") ;;
		esac
	done < <("$program" complete bash -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _PROGRAM PROGRAM
