"""The old place of `Sample`, `Truth`, `Batch`, ..: import them from `ocl_bench`. It goes with the next release."""

import warnings

from .core.types import *  # noqa: F403

warnings.warn("ocl_bench.types is ocl_bench now: from ocl_bench import Truth", DeprecationWarning, stacklevel=2)
