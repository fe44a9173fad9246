"""Checkpoints in and out: whose layout a file has is read off its keys."""
