"""The corridor: from a plan to a result."""
