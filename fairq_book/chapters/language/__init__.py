"""Does it hold for language? A small network that reads sixteen languages byte by byte."""
