"""Where the runs of a comparison are executed: the protocol, one file per kind, and the table that names them."""
