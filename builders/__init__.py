"""Builders: one folder per dataset, found by name through importlib.resources."""
