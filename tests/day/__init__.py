"""A recorded day's work with every command: python -m tests.day"""
