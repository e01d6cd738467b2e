"""The recipe: what to build, what is wrong with a recipe, and the recipes that come with h2crop."""
