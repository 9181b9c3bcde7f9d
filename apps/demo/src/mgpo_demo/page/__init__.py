"""The page: Gradio's components, what its events do, and the same functions as an API."""
