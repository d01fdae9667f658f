"""Executors: who runs a step."""
