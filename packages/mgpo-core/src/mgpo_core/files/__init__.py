"""Files and folders: written whole or not at all, never over a user's, recognised again."""
