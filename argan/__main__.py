"""`python -m argan`: the same as the command `argan`."""

from argan.cli import main

main()
