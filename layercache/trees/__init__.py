"""The package trees."""
