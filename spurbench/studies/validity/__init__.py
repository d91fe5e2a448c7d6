"""`spurbench validity`: does a classifier's score on a test set tell what it truly relies on?"""
