"""The embedded recipe's models, trained from nothing."""
