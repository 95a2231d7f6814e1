"""Measurements against the named peers: `make bench SECTION=NAME`, or all of them. See docs/benchmarks.md."""
