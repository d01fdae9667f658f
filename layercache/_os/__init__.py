"""The package _os."""
