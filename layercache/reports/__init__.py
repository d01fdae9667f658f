"""Reports and graphs as text for people and for other programs. Pure."""
