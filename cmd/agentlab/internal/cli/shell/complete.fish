# Completion of PROGRAM for fish. Put it where fish looks for completions:
#   PROGRAM completion fish > ~/.config/fish/completions/PROGRAM.fish
# or into one shell: PROGRAM completion fish | source
function __PROGRAM_complete
    set -l before (commandline -opc)
    set -l cur (commandline -ct)
    type -q $before[1]; or set before[1] PROGRAM
    for line in ($before[1] complete fish -- $before[2..-1] "$cur" 2>/dev/null)
        switch $line
            case :file
                __fish_complete_path $cur
            case :directory
                __fish_complete_directories $cur
            case '*'
                echo $line
        end
    end
end
complete -c PROGRAM -f -a '(__PROGRAM_complete)'
