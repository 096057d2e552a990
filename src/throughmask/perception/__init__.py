"""What is where in a picture: from words to masks."""
