"""`python -m gateway` is `outlay`."""

from gateway.cli import main

main()
