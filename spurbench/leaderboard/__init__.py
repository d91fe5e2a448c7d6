"""Entries, the boards that rank them, and the page."""
