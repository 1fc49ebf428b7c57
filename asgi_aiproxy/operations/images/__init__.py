"""Images: the neutral form and the API of clients in `base`, and one module for each API."""
