"""What a backbone is, what it costs, how it is read and written. Nothing here imports torch."""
