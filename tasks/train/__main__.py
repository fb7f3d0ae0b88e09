"""`python -m tasks.train`."""

from tasks.train.stages import main

if __name__ == "__main__":
    raise SystemExit(main())
