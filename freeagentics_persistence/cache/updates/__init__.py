"""Update channels and the replayable feed."""
