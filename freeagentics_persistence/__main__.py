"""``python -m freeagentics_persistence``: the command freeagentics-db."""

from freeagentics_persistence.cli.main import main

if __name__ == "__main__":
    main()
