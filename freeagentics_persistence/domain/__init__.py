"""Entities and rules: plain Python, numpy and h3, no input or output."""
