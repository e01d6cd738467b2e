"""From a recipe to a plan, block by block to a store."""
