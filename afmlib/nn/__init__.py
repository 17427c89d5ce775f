"""Blocks with parameters, ignorant of the roles that networks play."""
