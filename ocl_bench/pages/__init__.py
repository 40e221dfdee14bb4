"""Pages: HTML of finished results, static and self-contained."""
