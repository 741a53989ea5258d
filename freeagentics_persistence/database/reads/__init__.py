"""Reads by id: single ones that share statements, many in parts, and the opening of what was found."""
