"""`python -m ocl_bench` is the command line, which `torchrun -m ocl_bench` needs."""

from .cli import main

main()
