"""What agents believe: one agent's, many agents', their families, bytes and statistics."""
