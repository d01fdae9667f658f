"""The package inputs."""
