"""`spurbench ablate`: one recipe varied row by row, built over seeds, and measured."""
