"""The recognised layouts, one module each; `LAYOUTS` of `formats/__init__.py` lists them."""
