"""What people say about answers: kept by a server, line by line, and read for the next build. Must not import the web
server.
"""
