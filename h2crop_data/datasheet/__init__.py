"""A release in words: what it is, where it is from, how it was made, what is wrong with it."""
