"""`python -m anther`: the same as the command `anther`."""

from anther.cli import main

main()
