"""What is said to the model before each of its turns."""
