"""Cards: what a task and a model are."""
