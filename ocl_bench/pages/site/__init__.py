"""The board of the field: a static site of all tasks, models and papers."""
