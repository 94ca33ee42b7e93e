"""Makes a graph smaller and faster: one file a scheme, registered in one table."""
