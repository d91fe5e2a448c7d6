"""What is asked of datasets and classifiers beyond a score."""
