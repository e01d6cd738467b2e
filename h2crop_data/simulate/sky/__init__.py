"""What is between ground and satellite: clouds, shadows, haze, snow, and the air itself."""
