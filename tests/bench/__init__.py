"""Benchmarks of tinksched beside its peers: `sh tests/bench/run.sh`. They judge nothing and are no tests."""
