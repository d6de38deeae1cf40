"""`python -m tinksched`."""

from tinksched.cli import program

if __name__ == "__main__":
    program()
