"""`python -m ocl_bench.cli`."""

from . import main

main()
