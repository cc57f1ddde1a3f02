"""The way to a board: installation, doctor, deployment, configurations for other servers."""
