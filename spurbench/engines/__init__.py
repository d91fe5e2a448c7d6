"""Engines: who does the units of a work, and where; what is done is read from the store."""
