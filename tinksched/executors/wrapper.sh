#!/bin/sh
# The wrapper of one run: takes the lease, claims the run, runs the command on this terminal, writes its exit status.
#
#     wrapper.sh RUN_DIR LEASE WORK_DIR FLOCK
#
# It is started in an empty environment; FLOCK is the path of flock(1). RUN_DIR/command.sh, written by tinksched, exports
# the variables (the arguments of a process can be read by everybody) and becomes the program. RUN_DIR/pre_run.sh and
# RUN_DIR/post_run.sh are the same for what runs before and after it, where there is something.
# Standard input is empty, unless there is a RUN_DIR/interactive: then it is the terminal.
# With RUN_DIR/streams, which names a folder in its first line, the command writes to the files `stdout` and `stderr`
# there, and the terminal shows what they get.
# It writes in RUN_DIR:
#     began   its pid. Created exclusively: if the scheduler made it first, the run was taken back and never begins
#     never   why the run never began (its lease was revoked, say)
#     failed  that pre_run failed, so the command was not started
#     exit    the exit status and a line feed. Without the line feed the file does not count
# `never` and `exit` are there from the beginning, filled with dots, and are written in place: on a disk that is full by
# now there is room for them all the same.
#
# POSIX sh and flock(1) of util-linux; nothing is forked between the command's end and the exit status.
#
# There are two shells. The outer one leads the session: when its terminal goes away (the tmux session is closed, the
# server dies) the kernel sends HUP to the leader alone, and only the leader's death sends it to the command. So the
# outer shell dies of HUP and TERM, and the inner one outlives them to write down how the command ended.

never() {
    printf '%s\n' "$1" 1<>"$run_dir/never"
    exit 0
}

# A status that can't be written (the disk was made read-only, say) is kept, with the lease, until it can: it is all that
# anybody will ever know of the run's end. Without a folder nobody asks for it any more.
write_status() {
    # Some program, perhaps this very run, may have deleted the folder meanwhile.
    [ -d "$run_dir" ] || (umask 077 && mkdir -p -- "$run_dir")
    until { echo "$1" 1<>"$run_dir/exit"; } 2>/dev/null; do
        [ -d "$run_dir" ] || break
        sleep 1
    done
}

step() {
    if [ -e "$run_dir/interactive" ]; then
        (. "$run_dir/$1.sh")
    else
        (. "$run_dir/$1.sh") </dev/null
    fi
    code=$?
    return "$code"
}

# The functions are read as a whole before anything runs, so replacing this file disturbs no run.
inner() {
    run_dir=$1 lease=$2 work_dir=$3 flock=$4 streams=$5

    # The command runs in the foreground, so the kernel sends it Ctrl-C and hang-ups itself, and stop goes to its
    # processes by run id. A handler, unlike '', is not inherited.
    trap : HUP INT QUIT TERM

    # Descriptor 9 stays open in the command too: if this shell is killed, the lease lives on with the run.
    [ -s "$lease" ] || never 'its lease is gone'
    { command exec 9<>"$lease"; } 2>/dev/null || never 'its lease could not be opened'
    "$flock" -s -w 30 9 || never 'its lease could not be locked'
    # The lease may have been revoked, or its file removed by a cleaner, before the lock was there.
    [ -s "$lease" ] && [ "$lease" -ef /proc/self/fd/9 ] || never 'its lease was revoked'

    # `$$` would be the outer shell.
    read -r pid rest </proc/self/stat
    set -C
    { echo "$pid" >"$run_dir/began"; } 2>/dev/null || {
        [ ! -s "$run_dir/began" ] || exit 0 # taken back
        never 'no room to write that it begins'
    }
    set +C

    if ! cd -- "$work_dir"; then
        code=127
    elif [ -e "$run_dir/pre_run.sh" ] && ! step pre_run; then
        echo pre_run 1<>"$run_dir/failed"
    else
        code=126 # should its streams not be there to be opened
        if [ -n "$streams" ]; then
            step command >>"$streams/stdout" 2>>"$streams/stderr"
        else
            step command
        fi
        # What post_run returns changes nothing: the run has ended as its command did.
        [ ! -e "$run_dir/post_run.sh" ] || (step post_run)
    fi
    write_status "$code"
    exit "$code"
}

outer() {
    trap : INT QUIT
    trap '' TSTP # nobody could ever resume a run that Ctrl-Z suspended
    streams= show=
    [ ! -e "$1/streams" ] || IFS= read -r streams <"$1/streams"
    if [ -n "$streams" ] && [ -t 1 ]; then
        # tail shows the rest and ends when the process is gone that stands for the run.
        sleep 2147483647 &
        stands=$!
        tail -q -n +1 -F --pid="$stands" -- "$streams/stdout" "$streams/stderr" 2>/dev/null </dev/null &
        show=$!
    fi
    (inner "$@" "$streams")
    code=$?
    # The end of the inner shell has been noticed by now. tmux gives up a terminal as soon as the session's leader is
    # dead and nothing is to be read at that instant, but the kernel may be about to pass on the last output still.
    [ -z "$show" ] || { kill "$stands" && wait "$show"; }
    [ ! -t 1 ] || sleep 0.3
    exit "$code"
}

outer "$@"
