"""Starting and ending the server, and the login for its MCP tools."""
