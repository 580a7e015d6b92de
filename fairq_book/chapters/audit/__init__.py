"""The chapter on an audit of your model: what it asks for, its tables, its figures and its story."""
