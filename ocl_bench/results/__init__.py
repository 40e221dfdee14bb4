"""What one evaluation leaves, and how it is found again."""
