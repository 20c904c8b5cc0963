"""What people type: the ``woolwatch`` command, one module for each of its commands."""
