"""Making a classifier rely less on spurious features: what `spurbench mend` does."""
