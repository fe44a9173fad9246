"""`python -m hierarch`."""

from hierarch.cli import main

main()
