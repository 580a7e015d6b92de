"""One module a stage: what decides what is stored of encoders."""
