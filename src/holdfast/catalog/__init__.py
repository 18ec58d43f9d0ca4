"""What an operator manages: keystores, credentials, external keys and their generations, blocks."""
