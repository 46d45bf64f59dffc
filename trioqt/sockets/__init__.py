"""What you hold: sockets and servers, with their scopes, states and events."""
