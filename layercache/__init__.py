"""layercache: an image layer cache engine."""
