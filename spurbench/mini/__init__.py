"""The embedded planted world: its renderer, data sets and asset training."""
