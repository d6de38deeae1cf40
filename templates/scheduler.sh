#!/bin/sh
# Runs tinksched on the workspace that this file lies in: from any folder, through links, and from cron.
#
#   ./scheduler.sh start                         run every config in configs/
#   ./scheduler.sh start "a.yml,b.yml" "0,1"     run these two, on these GPUs
#   ./scheduler.sh other.yml status              with another config file
#   ./scheduler.sh help                          everything else
set -u

PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}    # cron may give none
export PATH

# The dot keeps the folder's name whole: $(...) would drop line breaks at its end.
script=$(readlink -f -- "$0" && printf .) || exit 2
script=${script%??}
here=${script%/*}
here=${here:-/}

# A relative config file is looked for in the current folder, then in the workspace.
case ${1-} in
    -*) ;;
    *.yml | *.yaml)
        config=$1
        shift
        if [ ! -e "$config" ] && [ "${config#/}" = "$config" ] && [ -e "$here/$config" ]; then
            config=$here/$config
        fi
        set -- --config "$config" "$@"
        ;;
esac
set -- --workspace "$here" "$@"

made_with=@TINKSCHED@
if [ -f "$made_with" ] && [ -x "$made_with" ]; then
    exec "$made_with" "$@"
elif program=$(command -v tinksched); then
    exec "$program" "$@"
elif python3 -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("tinksched.__main__"))' 2>/dev/null; then
    exec python3 -m tinksched "$@"
fi
printf '%s\n' "scheduler.sh: tinksched is neither at $made_with nor on PATH, and python3 does not have it." \
    "Install it with: python3 -m pip install tinksched" >&2
exit 2
