"""`spurbench build`: the stages of each class, their store, and what they will cost."""
