"""The emitted dataset: written, described, checked, compared, published."""
