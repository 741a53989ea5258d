"""The relay carries every committed event to the cache, the update channels and the metrics."""
