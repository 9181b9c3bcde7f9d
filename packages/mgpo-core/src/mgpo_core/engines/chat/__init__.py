"""The engine on any server that speaks OpenAI's chat API."""
