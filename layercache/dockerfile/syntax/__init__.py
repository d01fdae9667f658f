"""The package syntax."""
