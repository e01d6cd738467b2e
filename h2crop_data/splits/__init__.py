"""Which ground is in which split: squares, the search for a fair division, lists given from outside."""
