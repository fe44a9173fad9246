"""hierarch inside other libraries: one file each, and nothing of any of them is imported here."""
