"""What is typed: letters for commands, and what makes a shell ask for the completion of a word."""

SHORT = {  # letters for what is typed all day; nothing that throws work away unasked is among them
    "r": "run", "w": "wait", "l": "logs", "f": "logs", "a": "attach", "e": "explain", "s": "show", "c": "cancel",
    "h": "hold", "u": "release", "p": "priority", "g": "gpus",
}  # fmt: skip

# A word of bash ends at `=` and `:`, and a name may hold both: the whole word is asked for, its beginning cut off.
# A comma is nothing to the shell where braces are quoted, and separates names where it isn't quoted.
BASH = r"""
_tinksched() {
    local line=${COMP_LINE:0:COMP_POINT} found quoted
    local word=${line##*[[:space:]]}
    local before=${word%"${word##*[=:]}"}
    local -a words
    read -ra words <<<"${line%"$word"}"
    COMPREPLY=()
    while IFS= read -r found; do
        printf -v quoted %q "$found"
        quoted=${quoted//\\,/,}
        COMPREPLY+=("${quoted#"$before"}")
    done < <("$1" complete-words "${words[@]:1}" "$word" 2>/dev/null)
}
complete -o default -F _tinksched tinksched tk
"""
ZSH = r"""
#compdef tinksched tk
_tinksched() {
    local -a found
    found=("${(@f)$("${words[1]}" complete-words "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then compadd -a found; else _files; fi
}
compdef _tinksched tinksched tk
"""
FISH = r"""
function __tinksched_words
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    $words[1] complete-words $words[2..-1] "$word" 2>/dev/null
end
complete -c tinksched -f -a '(__tinksched_words)'
complete -c tk -f -a '(__tinksched_words)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
