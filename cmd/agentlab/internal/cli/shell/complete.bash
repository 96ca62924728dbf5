# Completion of PROGRAM for bash. Put it where bash looks for completions:
#   PROGRAM completion bash > /etc/bash_completion.d/PROGRAM
# or into one shell: source <(PROGRAM completion bash)
_PROGRAM() {
	local candidate cur=${COMP_WORDS[COMP_CWORD]}
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
	done < <("${COMP_WORDS[0]}" complete bash -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _PROGRAM PROGRAM
