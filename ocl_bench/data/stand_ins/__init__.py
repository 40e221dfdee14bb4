"""Rendered scenes, written in official layouts."""
