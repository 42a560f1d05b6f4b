"""A bank that needs real transactions: queues, notifications, serializable transfers, other processes, a web server."""
