"""The rules of scheduling: pure, without a clock and without I/O."""
