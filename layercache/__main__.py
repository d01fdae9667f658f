"""`python -m layercache`."""

from layercache.cli import script

if __name__ == "__main__":
    script()
