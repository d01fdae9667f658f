"""The scenarios that the observed rules give, a module for each of their sections."""
