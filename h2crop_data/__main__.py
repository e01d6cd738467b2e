"""`python -m h2crop_data` is the `h2crop` command."""

from h2crop_data.cli.main import main

if __name__ == "__main__":
    main()
