"""What operators do: migrate, check, back up."""
