"""The chapter on vision and language: what it asks for, its tables, its figures and its story."""
