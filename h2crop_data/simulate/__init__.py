"""A synthetic region with known truth, written in the archives' real product formats."""
