"""What a store looks like, for people: figures in numbers and in pictures."""
