#compdef PROGRAM
# Completion of PROGRAM for zsh. Put it, named _PROGRAM, into a directory of $fpath:
#   PROGRAM completion zsh > /usr/local/share/zsh/site-functions/_PROGRAM
# or into one shell, behind compinit: source <(PROGRAM completion zsh)
_PROGRAM() {
	local line program=${(Q)words[1]}
	(( $+commands[$program] )) || [[ -x $program ]] || program=PROGRAM
	local -a candidates
	for line in "${(@f)$("$program" complete zsh -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
		case $line in
		:file)
			compset -P '-*='
			_files
			return
			;;
		:directory)
			compset -P '-*='
			_files -/
			return
			;;
		*$'\t'*) candidates+=("${line%%$'\t'*}:${line#*$'\t'}") ;;
		?*) candidates+=("$line") ;;
		esac
	done
	_describe PROGRAM candidates
}
if [[ ${funcstack[1]} == _PROGRAM ]]; then
	_PROGRAM "$@"
else
	compdef _PROGRAM PROGRAM
fi
