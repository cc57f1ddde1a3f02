"""Deployment of a bundle to a board over the system's ssh.

The bundle is copied beside the version that serves and verified there. Then it takes that
version's place in one step. If the service fails, the version before it comes back.
"""
