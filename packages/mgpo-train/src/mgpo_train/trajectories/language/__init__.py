"""Reading English sentences about numbered images: what they name, and what they claim."""
