"""The chapter on what repairs it: what it asks for, its tables, its figures and its story."""
