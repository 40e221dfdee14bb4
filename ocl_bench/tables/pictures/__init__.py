"""Masks, neighbours and videos to look at."""
