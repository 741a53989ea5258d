"""Small protocols between the layers; adapters implement them, repositories use them."""
