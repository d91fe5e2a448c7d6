"""`spurbench survey`: people grade how natural real and generated images look."""
