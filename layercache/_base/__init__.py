"""The package _base."""
