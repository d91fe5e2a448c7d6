"""The supervision: people look at components in a local page, and say which are spurious."""
