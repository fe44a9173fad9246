"""The spec of a backbone: its fields, its claimed cost, reading and writing. Imports no torch."""
