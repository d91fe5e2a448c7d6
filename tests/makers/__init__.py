"""What tests make: toy recipes and models, datasets, results, a hub."""
