"""What can be done to a network, under one name that says all of it."""
