"""From images to answers: the classifier, its outputs and its results."""
