"""Entities and rules: plain Python, numpy, scipy and h3, no input or output."""
