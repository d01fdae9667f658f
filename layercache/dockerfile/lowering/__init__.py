"""The package lowering."""
