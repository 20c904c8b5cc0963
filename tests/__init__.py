"""The tests, a package so that benchmarks and tests share :mod:`tests.services`."""
