"""EnMAP scenes: which are used, and how they become a block."""
