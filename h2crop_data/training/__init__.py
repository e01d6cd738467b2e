"""Reading a store for training."""
