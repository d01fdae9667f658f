"""Observers that send the events of a build somewhere: a terminal, a tracing system."""
