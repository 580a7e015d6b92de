"""The chapter on who pays: what it asks for, its tables, its figures and its story."""
