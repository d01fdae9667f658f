"""The package advice."""
