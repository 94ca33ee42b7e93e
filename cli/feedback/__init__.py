"""From what people said about answers to the next build: rows of data, agreement, and a turn of the loop."""
