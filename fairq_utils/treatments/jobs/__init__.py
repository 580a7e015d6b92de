"""The jobs that make what is stored, a module for each stage; `codes` says what code decides it."""
