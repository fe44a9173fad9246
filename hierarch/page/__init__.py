"""One HTML file that shows networks: their architecture, cost, windows and masks, and results."""
