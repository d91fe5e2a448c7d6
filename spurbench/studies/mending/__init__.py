"""What mending is worth on the mini world, whose truth is known: before and after."""
