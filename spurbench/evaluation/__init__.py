"""From images and a classifier to a result: answers, measures, and classifiers compared."""
