"""A build's every number, and its pairs of class and spurious feature."""
