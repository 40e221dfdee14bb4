"""Names and files of checkpoints, ours and official ones."""
