"""How fast woolwatch is, beside a bare consumer in the same run: ``python -m benchmarks --help``."""
