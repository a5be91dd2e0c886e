"""`python -m yolokd`: the command line."""

from yolokd.cli.main import main

main()
