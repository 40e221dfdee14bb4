"""The metrics of each family as data: one module for each family."""
