"""The rest of the lecture, one published system a program: python -m chapters.NAME."""

import metarl  # noqa: F401 - first, since it limits BLAS to one thread before NumPy is imported
