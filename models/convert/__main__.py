"""`python -m models.convert`."""

from models.convert.command import main

if __name__ == "__main__":
    raise SystemExit(main())
