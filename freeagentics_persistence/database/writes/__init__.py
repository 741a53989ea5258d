"""Writing: each change in one transaction with its history and its event."""
