"""Pictures: what the network is fed, what it finds alike, how training went."""
