"""Measures every row of the hot path's budget: `python -m benchmarks`."""
