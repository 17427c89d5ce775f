"""``python -m afmlib`` is the command ``afmlib``."""

from afmlib.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
