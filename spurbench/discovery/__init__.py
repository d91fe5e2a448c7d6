"""Finding a classifier's spurious features: class-wise neural PCA, and people who look at it."""
