"""`spurbench probe`: what makes a feature spurious, its colour, its shape or its texture?"""
