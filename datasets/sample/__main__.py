"""`python -m datasets.sample`."""

from datasets.sample.make import main

if __name__ == "__main__":
    main()
