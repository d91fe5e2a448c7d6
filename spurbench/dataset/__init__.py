"""The emitted dataset: written, described, checked, compared, exported, published."""
