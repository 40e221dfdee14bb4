"""The metrics of each family, as data: one file for each."""
