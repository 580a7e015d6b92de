"""The chapter on the zero bin: what it asks for, its tables, its figures and its story."""
