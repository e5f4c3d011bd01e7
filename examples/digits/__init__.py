"""The demo: handwritten digits out of an AIStore bucket, read in two ways, with two classifiers trained on them."""
