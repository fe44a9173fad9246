"""The kinds of files that networks are exported to, one module each."""
