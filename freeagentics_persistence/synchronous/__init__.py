"""The async API as ordinary calls, for callers without an event loop."""
