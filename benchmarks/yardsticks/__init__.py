"""What the store is measured against: the limits of its servers, and plain ways to do the same."""
