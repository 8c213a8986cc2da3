"""The execution plugin and the machine's resources."""
