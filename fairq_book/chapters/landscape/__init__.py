"""The chapter on the loss around a network: what it asks for, its tables, its figures and its story."""
