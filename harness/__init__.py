"""What a run needs around the method: settings, the command line, workers, checkpoints, figures."""

import metarl  # noqa: F401 - first, since it limits BLAS to one thread before NumPy is imported
