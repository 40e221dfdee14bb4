"""Results and published rows, ranked."""
