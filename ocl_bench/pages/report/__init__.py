"""The report of a run: one page with its numbers, every sample, and what the model does wrong."""
