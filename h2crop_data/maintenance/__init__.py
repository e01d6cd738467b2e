"""What is done to a finished store: other labels, retractions, older formats, comparing two of them."""
