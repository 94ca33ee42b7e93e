"""What the roof says of the family `once`, whose tasks are answered by one run of the graph."""
