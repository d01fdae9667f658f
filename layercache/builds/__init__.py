"""The package builds."""
