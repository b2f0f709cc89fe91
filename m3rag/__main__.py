"""`python -m m3rag`: the command line, also where the folder of scripts is not on the path."""

from m3rag.cli import main

if __name__ == "__main__":
    main()
