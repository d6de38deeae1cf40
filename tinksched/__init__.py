"""tinksched: queue a folder of configs, keep every GPU busy, watch any run live in tmux, lose nothing."""

__version__ = "0.1.0"
