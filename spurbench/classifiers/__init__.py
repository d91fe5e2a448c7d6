"""Classifiers from wherever people have them, and what is in an image: one face for all."""
