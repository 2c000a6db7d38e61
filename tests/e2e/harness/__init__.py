"""What the end-to-end tests stand on: a real server process, exact HTTP, outside readers of the tables.

Nothing here knows the inside of the server. What a test learns, it learns through the listener, the table files,
the process's own output and /proc.
"""
