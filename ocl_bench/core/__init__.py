"""Types, errors, files and other tools that every other room uses; they import from no other room."""
