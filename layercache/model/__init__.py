"""The package model."""
