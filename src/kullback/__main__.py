"""`python -m kullback`: the command line."""

from kullback.cli.main import main

if __name__ == "__main__":
    main()
