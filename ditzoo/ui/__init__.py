"""The local web page: what it offers, the queue of its jobs, and the server on the loopback interface."""
