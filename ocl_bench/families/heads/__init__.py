"""Heads on top of a frozen model. They are fitted on a different split from the one that is scored."""
