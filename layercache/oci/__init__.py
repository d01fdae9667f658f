"""The package oci."""
