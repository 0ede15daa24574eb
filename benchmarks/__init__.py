"""What measures the claims of the README: python -m benchmarks.NAME."""
