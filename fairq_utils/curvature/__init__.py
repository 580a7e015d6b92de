"""The loss around a network: Hessians, spectra, and surveys of them."""
