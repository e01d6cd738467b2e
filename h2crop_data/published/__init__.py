"""The layout of the published H2Crop dataset, in and out."""
