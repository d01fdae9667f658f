"""Base images in, images out: OCI layouts, archives and registries."""
