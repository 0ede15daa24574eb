"""What measures the claims of the README: python -m benchmarks.NAME."""

import metarl  # noqa: F401 - first, since it limits BLAS to one thread before NumPy is imported
