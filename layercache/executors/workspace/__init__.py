"""The package workspace."""
