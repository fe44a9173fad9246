"""The modules: what runs."""
