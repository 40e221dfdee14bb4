"""Heads that are fitted on top of a frozen model, on another split than the one that is scored."""
