"""What a run needs around the method: settings, the command line, workers, checkpoints, figures."""

# First of all, since it limits BLAS to one thread before NumPy is imported.
import metarl  # noqa: F401
