"""Images on their way in and out: small copies for pages."""
