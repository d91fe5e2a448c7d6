"""`spurbench report`: what sections 4 and 5 of the paper show, for any dataset."""
