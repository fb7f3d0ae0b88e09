"""`python -m tasks.weights`."""

from tasks.weights.command import main

if __name__ == "__main__":
    raise SystemExit(main())
