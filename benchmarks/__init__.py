"""Benchmarks: `python -m benchmarks.NAME [--quick] [--json FILE]`, one question a file."""
