"""Repositories: the only place that queries."""
