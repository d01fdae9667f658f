"""The package solver."""
