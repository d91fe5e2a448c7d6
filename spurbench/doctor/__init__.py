"""What works on this machine, and what the build of a recipe will need of it."""
