"""What this machine knows and holds: processes, kernel locks, GPUs, tmux, markers, wake-up sockets."""
