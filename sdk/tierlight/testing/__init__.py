"""Test doubles shipped to users."""
