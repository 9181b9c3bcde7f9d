"""One visitor's session without Gradio: image, steps, streaming, saving, limits."""
