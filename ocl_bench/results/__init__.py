"""The result files of evaluations: their format, how they are stored, found and ranked."""
