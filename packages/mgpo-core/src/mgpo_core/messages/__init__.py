"""What messages to a user are made of: shortened data, suggestions, how to install what is missing."""
