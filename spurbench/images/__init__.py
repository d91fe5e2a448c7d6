"""Images from folders, datasets and the hub, as records and as pixels."""
