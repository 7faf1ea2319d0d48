"""`python -m bertlab`."""

from bertlab.cli import main

if __name__ == "__main__":
    main()
